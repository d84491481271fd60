# make 01_naive_qk [ARGS="--list"]: one stage against the one before it.
include(${CMAKE_CURRENT_LIST_DIR}/verbs.cmake)

al_choose_backend(backend)
al_setup(BACKEND ${backend})
al_build(${backend} ${STAGE})
separate_arguments(arguments UNIX_COMMAND "${ARGS}")
# Not al_run: the program has said in a sentence what is wrong, and no call stack shall follow it.
execute_process(COMMAND build/${backend}/bin/${STAGE} ${arguments} WORKING_DIRECTORY ${AL_ROOT}
                RESULT_VARIABLE code)
if(NOT code EQUAL 0)
  message(FATAL_ERROR "${STAGE} ended with ${code}: the lines above say why.")
endif()
