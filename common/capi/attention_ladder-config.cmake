# find_package(attention_ladder [COMPONENTS cuda emulator]): the C library.
#
#   attention_ladder::cuda      kernels on a GPU: pointers are device pointers
#   attention_ladder::emulator  the same kernels on the CPU: pointers are host pointers
#
# Each is there if it was installed; a component that was not is an error.

foreach(backend cuda emulator)
  include(${CMAKE_CURRENT_LIST_DIR}/attention_ladder-${backend}.cmake OPTIONAL
          RESULT_VARIABLE attention_ladder_${backend}_FOUND)
  if(attention_ladder_${backend}_FOUND)
    set(attention_ladder_${backend}_FOUND TRUE)
  elseif(backend IN_LIST attention_ladder_FIND_COMPONENTS
         AND attention_ladder_FIND_REQUIRED_${backend})
    set(attention_ladder_FOUND FALSE)
    set(attention_ladder_NOT_FOUND_MESSAGE
        "attention_ladder is installed in ${CMAKE_CURRENT_LIST_DIR} without '${backend}': run 'cmake --install build/${backend}' with the same prefix.")
  endif()
endforeach()
