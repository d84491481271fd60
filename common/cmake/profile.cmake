# make profile STAGE=01_naive_qk [ARGS="--config tiny"]: the stage's kernels through ncu, one line
# each; the report stays in build/profile/.
include(${CMAKE_CURRENT_LIST_DIR}/verbs.cmake)

if(NOT STAGE)
  message(FATAL_ERROR "Which stage? As in 'make profile STAGE=01_naive_qk'.")
endif()
al_find_gpu(gpu)
if(NOT gpu_NAME)
  message(FATAL_ERROR "There is no NVIDIA GPU here (nvidia-smi shows none), and ncu counts on a GPU only; in the emulator 'make ${STAGE}' shows what it counts.")
endif()
al_setup(BACKEND cuda)
al_find_tool(ncu ncu)
if(NOT ncu)
  set(ncu ncu)  # it says what to do
endif()
al_build(cuda ${STAGE})
separate_arguments(arguments UNIX_COMMAND "${ARGS}")
# --check: each variant runs once, and nothing is timed. Not al_run: the profiler has said in a
# sentence what is wrong, and no call stack shall follow it.
execute_process(COMMAND python3 docs/profiler.py --ncu ${ncu}
                        --report build/profile/${STAGE}.ncu-rep --
                        build/cuda/bin/${STAGE} --check ${arguments}
                WORKING_DIRECTORY ${AL_ROOT} RESULT_VARIABLE code)
if(NOT code EQUAL 0)
  message(FATAL_ERROR "${STAGE} was not profiled (${code}): the lines above say why.")
endif()
