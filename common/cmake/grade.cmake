# make grade DIR=submissions [LAB=04.1] [SEED=n] [JOBS=n] [OUT=folder] [AGAIN=1] [SINGLE=1]:
# common/lab/grade.py
include(${CMAKE_CURRENT_LIST_DIR}/verbs.cmake)

if(NOT DIR)
  message(FATAL_ERROR "Which submissions? Say make grade DIR=folder; docs/instructor.md shows how they may lie in it.")
endif()
al_setup(BACKEND emulator)
al_build(emulator al_lab lab_judge)
set(arguments ${DIR})
foreach(option LAB SEED JOBS OUT)
  if(NOT "${${option}}" STREQUAL "")  # 0 is a seed too
    string(TOLOWER ${option} name)
    list(APPEND arguments --${name} ${${option}})
  endif()
endforeach()
foreach(switch AGAIN SINGLE)
  if(${switch})
    string(TOLOWER ${switch} name)
    list(APPEND arguments --${name})
  endif()
endforeach()
execute_process(COMMAND python3 common/lab/grade.py ${arguments} WORKING_DIRECTORY ${AL_ROOT}
                RESULT_VARIABLE code)
if(code EQUAL 1)
  message(FATAL_ERROR "Not passed yet.")
elseif(NOT code EQUAL 0)
  message(FATAL_ERROR "Grading ended with exit code ${code}: the lines above say why.")
endif()
