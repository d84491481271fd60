# What the compiler really made of some kernels, read from the object file with cuobjdump.
#   cmake -DOBJECTS=stage.o -DKERNELS=names -P compiler_report.cmake              no spills
#   cmake -DOBJECTS=stage.o -DKERNELS=names -DSTACK=bytes -P compiler_report.cmake  no more than that
#   cmake -DOBJECTS=stage.o -DKERNELS=name -DOPCODES=list -P compiler_report.cmake  SASS has these
# Names are regular expressions of demangled names; one that fits no kernel is an error.

include(${CMAKE_CURRENT_LIST_DIR}/machine.cmake)

al_find_tool(cuobjdump cuobjdump)
al_find_tool(nvdisasm nvdisasm)
if(NOT cuobjdump OR NOT nvdisasm)
  message(NOTICE "SKIP: cuobjdump and nvdisasm are not installed; 'make test' installs them.")
  return()
endif()
cmake_path(GET nvdisasm PARENT_PATH nvdisasm_folder)  # cuobjdump calls it by name
set(ENV{PATH} "${nvdisasm_folder}:$ENV{PATH}")

# One line a kernel: its demangled name, a newline, the rest of the report.
function(dump out option)
  set(all "")
  foreach(object ${OBJECTS})
    execute_process(COMMAND ${cuobjdump} ${option} ${object} COMMAND c++filt
                    OUTPUT_VARIABLE text RESULTS_VARIABLE codes ERROR_VARIABLE error)
    if(error MATCHES "does not contain device code")
      continue()
    elseif(NOT codes STREQUAL "0;0")
      message(FATAL_ERROR "cuobjdump ${option} ${object} failed: ${error}")
    endif()
    string(REGEX REPLACE "[][;]" " " text "${text}")  # they mean something in a CMake list
    string(REGEX REPLACE "\n[ \t]*Function *:? *" ";" kernels "${text}")
    list(POP_FRONT kernels)  # the file's header
    list(APPEND all ${kernels})
  endforeach()
  set(${out} "${all}" PARENT_SCOPE)
endfunction()

if(OPCODES)
  dump(kernels --dump-sass)
else()
  dump(kernels --dump-resource-usage)
endif()

foreach(name ${KERNELS})
  set(found FALSE)
  foreach(kernel ${kernels})
    string(REGEX MATCH "^[^\n]*" title "${kernel}")
    if(NOT title MATCHES "${name}")
      continue()
    endif()
    set(found TRUE)
    if(OPCODES)
      foreach(opcode ${OPCODES})
        string(FIND "${kernel}" "${opcode}" at)
        if(at EQUAL -1)
          message(SEND_ERROR "There is no ${opcode} in the machine code of ${title}")
        endif()
      endforeach()
      # WGMMAs that the compiler serialised (its remark C7510) each end a group of their own.
      string(REGEX MATCHALL "HGMMA[^\n]*" products "${kernel}")
      list(LENGTH products all)
      list(FILTER products INCLUDE REGEX "gsb0")
      list(LENGTH products groups)
      math(EXPR twice "${groups} * 2")
      if(twice GREATER all)
        message(SEND_ERROR "The compiler serialised the WGMMAs of ${title}")
      endif()
    elseif(STACK)
      string(REGEX MATCH "STACK:([0-9]+)" stack "${kernel}")
      if(CMAKE_MATCH_1 GREATER STACK)
        message(SEND_ERROR "The compiler put more than ${STACK} bytes of this kernel into local memory: ${kernel}")
      endif()
    elseif(NOT kernel MATCHES "STACK:0 .*LOCAL:0 ")
      message(SEND_ERROR "The compiler put registers of this kernel into local memory: ${kernel}")
    endif()
  endforeach()
  if(NOT found)
    message(SEND_ERROR "There is no kernel named ${name} in ${OBJECTS}")
  endif()
endforeach()
