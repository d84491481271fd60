# make ladder [ARGS="--config tiny"]: every stage in one table.
include(${CMAKE_CURRENT_LIST_DIR}/verbs.cmake)

al_choose_backend(backend)
al_setup(BACKEND ${backend})
al_build(${backend} ladder)
separate_arguments(arguments UNIX_COMMAND "${ARGS}")
al_run(build/${backend}/bin/ladder ${arguments})
