# make test: every test that can run on this machine, and one summary in ctest's words.
include(${CMAKE_CURRENT_LIST_DIR}/verbs.cmake)

al_find_gpu(gpu)
if(gpu_NAME)
  al_setup(BACKEND cuda TOOLS)
else()
  al_setup(BACKEND emulator TOOLS)
endif()

set(presets emulator emulator-asan)
al_find_toolkit(cuda)
if(cuda_NVCC)
  list(APPEND presets cuda)
  if(NOT gpu_NAME)
    message(STATUS "SKIP: tests on a GPU, as nvidia-smi shows none; the kernels are compiled, and the compiler's report is checked")
  endif()
else()
  message(STATUS "SKIP: the CUDA build, as there is no nvcc and no GPU")
endif()
foreach(preset ${presets})
  message(STATUS "Building ${preset}")
  al_build(${preset})
endforeach()

# One ctest over all the trees.
list(JOIN presets " " folders)
file(WRITE ${AL_ROOT}/build/CTestTestfile.cmake "subdirs(${folders})\n")
set(jobs ${AL_CORES})
if(gpu_NAME)
  set(jobs 1)  # tests that share a GPU share its memory
endif()
al_run(${CMAKE_CTEST_COMMAND} --test-dir build --parallel ${jobs} --output-on-failure)
