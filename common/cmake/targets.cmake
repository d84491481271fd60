# What a chapter says to get built: al_add_stage(), and what it promises of its kernels:
# al_expect_no_spills(), al_expect_sass().

# Flags of all our code; other people's headers are SYSTEM and keep their warnings to themselves.
add_library(al_flags INTERFACE)
target_include_directories(al_flags INTERFACE ${AL_ROOT})
target_include_directories(al_flags SYSTEM INTERFACE ${cuda_INCLUDES})
target_compile_options(
  al_flags
  INTERFACE $<$<COMPILE_LANGUAGE:C,CXX>:-Wall -Wextra -Wpedantic -Wshadow>
            $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra -lineinfo>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 sees overlapping copies in "a" + std::string that are not there (its bug 105651).
  target_compile_options(al_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-restrict>)
endif()
if(AL_BACKEND STREQUAL "emulator")
  target_compile_definitions(
    al_flags INTERFACE AL_EMULATOR THRUST_DEVICE_SYSTEM=THRUST_DEVICE_SYSTEM_CPP)
endif()
if(AL_ASAN)
  set(sanitizers -fsanitize=address,undefined -fno-sanitize-recover=all)
  # -O1: at -O3 g++ takes minutes for a file with UBSan. Reports name lines; where variables are
  # would take a tenth of the build.
  target_compile_options(al_flags INTERFACE ${sanitizers} -O1 -fno-omit-frame-pointer -g
                                            -fno-var-tracking)
  target_link_options(al_flags INTERFACE ${sanitizers})
endif()

# Under the emulator .cu files are C++ for g++.
function(al_cuda_sources)
  if(AL_BACKEND STREQUAL "emulator")
    set_source_files_properties(${ARGN} PROPERTIES LANGUAGE CXX)
  endif()
endfunction()

# The same for files with kernels. Reports name their lines (-g); a float4 read from a float array
# is legal CUDA but not legal C++. In the checked build every load and store calls a function of
# ours (emulator/): g++ inserts the calls, its own ThreadSanitizer is never linked. SRA would turn
# a float4 load into four of 4 bytes, which a GPU does not.
set(al_kernel_options "")
if(AL_BACKEND STREQUAL "emulator")
  set(al_kernel_options -g -fno-strict-aliasing -fno-threadsafe-statics
                        -Wno-unknown-pragmas)  # #pragma unroll
  if(NOT AL_ASAN)
    list(APPEND al_kernel_options -fsanitize=thread -fno-tree-sra)
  endif()
endif()
function(al_kernel_sources)
  al_cuda_sources(${ARGN})
  set_source_files_properties(${ARGN} PROPERTIES COMPILE_OPTIONS "${al_kernel_options}")
endfunction()

# Of files whose kernels take a TensorMap: else g++ says of each how GCC 4.5 would have passed it.
function(al_no_abi_notes)
  if(AL_BACKEND STREQUAL "emulator" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    set_property(SOURCE ${ARGN} APPEND PROPERTY COMPILE_OPTIONS -Wno-psabi)
  endif()
endfunction()

# al_add_tests(NAME sources... [LIBRARIES targets...]): executable NAME_tests, test <build>/NAME.
# Exit code 77 means that there is no GPU.
function(al_add_tests name)
  cmake_parse_arguments(arg "" "" "LIBRARIES" ${ARGN})
  add_executable(${name}_tests ${arg_UNPARSED_ARGUMENTS})
  target_link_libraries(${name}_tests PRIVATE al_test_main ${arg_LIBRARIES})
  add_test(NAME ${AL_BUILD}/${name} COMMAND ${name}_tests WORKING_DIRECTORY ${AL_ROOT})
  al_label(${AL_BUILD}/${name})
endfunction()

function(al_label test)
  set_tests_properties(${test} PROPERTIES SKIP_RETURN_CODE 77)
  if(AL_BACKEND STREQUAL "cuda")  # one at a time: tests that share a GPU share its memory
    set_tests_properties(${test} PROPERTIES LABELS gpu RESOURCE_LOCK gpu)
  else()
    set_tests_properties(${test} PROPERTIES LABELS cpu)
  endif()
endfunction()

# al_add_stage(NAME [PRIOR other_stage] [TILES tiles.cu...] [SOURCES more.cu...] [LIBRARIES targets...])
#   NAME_objects  the stage's record and kernels (stage.cu and SOURCES), compiled once
#   NAME          the executable (main.cu), with the prior stages to compare with and build upon
#   NAME_tests    tests.cu
#   NAME_tiles    with TILES: main.cu with AL_TILES and the sweep's many kernels; built when asked for
#   NAME_labs     lab/run*.cu, as al_add_labs() has it
function(al_add_stage name)
  cmake_parse_arguments(arg "" "PRIOR" "SOURCES;TILES;LIBRARIES" ${ARGN})
  if(arg_PRIOR AND NOT TARGET ${arg_PRIOR}_objects)  # this chapter is configured alone
    add_subdirectory(${AL_ROOT}/${arg_PRIOR} ${CMAKE_BINARY_DIR}/${arg_PRIOR})
  endif()
  set(stages ${name}_objects)  # and those of all stages before it
  if(arg_PRIOR)
    get_target_property(prior_stages ${arg_PRIOR}_objects AL_STAGES)
    list(APPEND stages ${prior_stages})
  endif()
  al_kernel_sources(stage.cu tests.cu ${arg_SOURCES} ${arg_TILES})
  al_cuda_sources(main.cu)

  add_library(${name}_objects OBJECT stage.cu ${arg_SOURCES})
  target_link_libraries(${name}_objects PUBLIC al_common ${arg_LIBRARIES})
  set_target_properties(${name}_objects PROPERTIES AL_STAGES "${stages}")

  add_executable(${name} main.cu)
  target_link_libraries(${name} PRIVATE ${stages})

  al_add_tests(${name} tests.cu LIBRARIES ${stages})

  if(arg_TILES)
    add_executable(${name}_tiles EXCLUDE_FROM_ALL main.cu ${arg_TILES})
    target_compile_definitions(${name}_tiles PRIVATE AL_TILES)
    target_link_libraries(${name}_tiles PRIVATE ${stages})
  endif()

  al_add_labs(${name} ${arg_LIBRARIES})

  # The architectures this build leaves out: that they compile is a test of its own.
  if(AL_BACKEND STREQUAL "cuda")
    add_library(${name}_other_architectures OBJECT EXCLUDE_FROM_ALL stage.cu ${arg_SOURCES})
    target_link_libraries(${name}_other_architectures PRIVATE al_common ${arg_LIBRARIES})
    set_property(TARGET ${name}_other_architectures
                 PROPERTY CUDA_ARCHITECTURES 75-real 80-real 89-real)
    if(NOT TARGET other_architectures)  # all chapters at once, so that no core waits
      include(ProcessorCount)
      ProcessorCount(cores)
      add_custom_target(other_architectures)
      add_test(NAME ${AL_BUILD}/other_architectures
               COMMAND ${CMAKE_COMMAND} --build ${CMAKE_BINARY_DIR} --parallel ${cores} --target
                       other_architectures)
      set_tests_properties(${AL_BUILD}/other_architectures PROPERTIES LABELS compiler RUN_SERIAL ON
                                                                      TIMEOUT 3600)
    endif()
    add_dependencies(other_architectures ${name}_other_architectures)
  endif()
endfunction()

# al_add_labs(NAME libraries...)
#   NAME_labs          lab/run*.cu: never built, but compile_commands.json then says how (lab/judge.py)
#   NAME_lab_headers   with lab/headers.hpp: headers that no student edits and that take seconds,
#                      compiled once, so that each attempt need not; the emulator's alone
function(al_add_labs name)
  file(GLOB programs CONFIGURE_DEPENDS lab/run*.cu)
  if(NOT programs)
    return()
  endif()
  al_cuda_sources(${programs})
  add_library(${name}_labs OBJECT EXCLUDE_FROM_ALL ${programs})
  set(targets ${name}_labs)
  set(headers ${CMAKE_CURRENT_SOURCE_DIR}/lab/headers.hpp)
  if(EXISTS ${headers} AND AL_BACKEND STREQUAL "emulator" AND NOT AL_ASAN)
    file(CONFIGURE OUTPUT lab_headers.cpp CONTENT "// CMake compiles headers for a source only.\n")
    add_library(${name}_lab_headers OBJECT ${CMAKE_CURRENT_BINARY_DIR}/lab_headers.cpp)
    target_precompile_headers(${name}_lab_headers PRIVATE ${headers})
    target_precompile_headers(${name}_labs REUSE_FROM ${name}_lab_headers)
    list(APPEND targets ${name}_lab_headers)
  endif()
  foreach(target ${targets})
    target_link_libraries(${target} PRIVATE al_common ${ARGN})
    target_compile_options(${target} PRIVATE ${al_kernel_options})
    if(AL_BACKEND STREQUAL "emulator")
      # A student waits for this: -g1 has the lines that a report names, and a fifth of the time less.
      target_compile_options(${target} PRIVATE -O1 -g1)
    endif()
  endforeach()
endfunction()

# al_expect_no_spills(NAME kernel...): the compiler kept these kernels of stage.cu in registers,
# nothing in local memory. A kernel is a regular expression of its demangled name.
function(al_expect_no_spills name)
  al_expect(${name} no_spills "${ARGN}" "")
endfunction()

# al_expect_few_spills(NAME BYTES kernel...): no more than BYTES a thread. For a kernel that is
# faster so than with a smaller tile.
function(al_expect_few_spills name bytes)
  al_expect(${name} few_spills "${ARGN}" "" -DSTACK=${bytes})
endfunction()

# al_expect_sass(NAME kernel opcode...): these instructions are in the kernel's machine code.
function(al_expect_sass name kernel)
  string(MAKE_C_IDENTIFIER ${kernel} identifier)
  al_expect(${name} sass_${identifier} ${kernel} "${ARGN}")
endfunction()

function(al_expect name what kernels opcodes)
  if(AL_BACKEND STREQUAL "cuda")
    add_test(NAME ${AL_BUILD}/${name}/${what}
             COMMAND ${CMAKE_COMMAND} "-DOBJECTS=$<TARGET_OBJECTS:${name}_objects>"
                     "-DKERNELS=${kernels}" "-DOPCODES=${opcodes}" ${ARGN} -P
                     ${AL_ROOT}/common/cmake/compiler_report.cmake)
    set_tests_properties(${AL_BUILD}/${name}/${what} PROPERTIES LABELS compiler
                         SKIP_REGULAR_EXPRESSION "^SKIP")
  endif()
endfunction()
