# make lab [LAB=01.1] [HINT=1] [RESET=1] [GPU=1] [SEED=n], make lab-watch LAB=01.1: see common/lab/.
include(${CMAKE_CURRENT_LIST_DIR}/verbs.cmake)

set(arguments ${LAB})
foreach(switch HINT WATCH RESET)
  if(${switch})
    string(TOLOWER ${switch} name)
    list(APPEND arguments --${name})
  endif()
endforeach()
if(SEED)
  list(APPEND arguments --seed ${SEED})
endif()
set(backend emulator)
if(GPU)
  set(backend cuda)
  list(APPEND arguments --gpu)
endif()
if(LAB AND NOT HINT)
  al_setup(BACKEND ${backend})
  if(EXISTS ${AL_ROOT}/build/${backend}/bin/lab_judge)  # seconds at the most: not worth a line
    execute_process(COMMAND ${CMAKE_COMMAND} --build build/${backend} --parallel ${AL_CORES} --target al_lab lab_judge
                    WORKING_DIRECTORY ${AL_ROOT} OUTPUT_VARIABLE text ERROR_VARIABLE text
                    RESULT_VARIABLE code)
    if(NOT code EQUAL 0)
      message(FATAL_ERROR "What the labs need does not build:\n${text}")
    endif()
  else()
    message(STATUS "Building what the labs need, once")
    al_build(${backend} al_lab lab_judge)
  endif()
endif()
execute_process(COMMAND python3 common/lab/lab.py ${arguments} WORKING_DIRECTORY ${AL_ROOT}
                RESULT_VARIABLE code)
if(code GREATER 1)  # 1: judged, and not passed yet, which is no fault of make's
  message(FATAL_ERROR "There is no verdict: the line above says why.")
endif()
