# make 01_naive_qk [ARGS="--list"]: one stage against the one before it.
include(${CMAKE_CURRENT_LIST_DIR}/verbs.cmake)

al_choose_backend(backend)
al_setup(BACKEND ${backend})
al_build(${backend} ${STAGE})
separate_arguments(arguments UNIX_COMMAND "${ARGS}")
al_run(build/${backend}/bin/${STAGE} ${arguments})
