# Installs a build, moves the prefix elsewhere, and builds and runs examples/c against it from a
# folder of its own, as somebody who has the installed files alone would. Run by ctest.
#   BUILD BACKEND   the build tree and its back end
#   GENERATOR C_COMPILER WORK

include(${CMAKE_CURRENT_LIST_DIR}/../common/cmake/machine.cmake)
set(prefix ${WORK}/elsewhere)

function(run expected)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${WORK} RESULT_VARIABLE code
                  OUTPUT_VARIABLE text ERROR_VARIABLE text)
  string(REGEX REPLACE "[ \n]+" " " line "${text}")  # CMake breaks lines
  string(FIND "${line}" "${expected}" at)
  if(at EQUAL -1)
    message(FATAL_ERROR "Expected\n  ${expected}\nof ${ARGN}\nbut this came (${code}):\n${text}")
  endif()
endfunction()

file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})
run("" ${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/first --strip)
file(RENAME ${WORK}/first ${prefix})
foreach(file include/attention_ladder.h share/attention_ladder/attention_ladder.py)
  if(NOT EXISTS ${prefix}/${file})
    message(FATAL_ERROR "${file} was not installed.")
  endif()
endforeach()
file(GLOB_RECURSE installed ${prefix}/*.cmake)
foreach(file ${installed})
  file(READ ${file} text)
  string(FIND "${text}" "${WORK}" here)
  string(FIND "${text}" "${AL_ROOT}" source)
  if(NOT (here EQUAL -1 AND source EQUAL -1))
    message(FATAL_ERROR "${file} names a folder of this machine: it could not be moved.")
  endif()
endforeach()

set(configure ${CMAKE_COMMAND} -G ${GENERATOR} -S ${CMAKE_CURRENT_LIST_DIR}/c
              -DCMAKE_C_COMPILER=${C_COMPILER} -DCMAKE_PREFIX_PATH=${prefix}
              "-DCMAKE_C_FLAGS=-Wall -Wextra -Wpedantic -Wshadow -Werror")
run("Generating done" ${configure} -B ${WORK}/build -DBACKEND=${BACKEND})
run("" ${CMAKE_COMMAND} --build ${WORK}/build)
al_find_gpu(gpu)
if(BACKEND STREQUAL "emulator" OR gpu_NAME)
  run("attention-ladder on ${BACKEND}" ${WORK}/build/attention)
  execute_process(COMMAND ${WORK}/build/attention OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)
endif()

# A back end that was not installed is an error that says what to do.
set(other cuda)
if(BACKEND STREQUAL "cuda")
  set(other emulator)
endif()
run("without '${other}': run 'cmake --install build/${other}' with the same prefix" ${configure} -B
    ${WORK}/other -DBACKEND=${other})

# Beside the library, the Python file finds it.
if(BACKEND STREQUAL "emulator")
  run("elsewhere/lib" ${CMAKE_COMMAND} -E env --unset=ATTENTION_LADDER_PATH
      PYTHONPATH=${prefix}/share/attention_ladder python3 -B -c
      "print(__import__('attention_ladder').library('emulator').path)")
endif()
