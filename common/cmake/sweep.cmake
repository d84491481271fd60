# make sweep STAGE=01_naive_qk: every tile on this GPU → docs/results/<gpu>/<stage>_tiles.json.
include(${CMAKE_CURRENT_LIST_DIR}/verbs.cmake)

if(NOT STAGE)
  message(FATAL_ERROR "Which stage? As in 'make sweep STAGE=01_naive_qk'.")
endif()
al_results_folder(results)
al_setup(BACKEND cuda)
al_build(cuda ${STAGE}_tiles)
separate_arguments(arguments UNIX_COMMAND "${ARGS}")
al_run(build/cuda/bin/${STAGE}_tiles --sweep tiles --json ${results}/${STAGE}_tiles.json
       ${arguments})
