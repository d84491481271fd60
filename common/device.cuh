// What a kernel file may assume: the CUDA language. nvcc brings it; under the emulator, g++ gets
// the same names from common/emulator/cuda.hpp. Kernels include this and nothing of CUDA directly.
#pragma once

#ifdef AL_EMULATOR
#include "common/emulator/cuda.hpp"
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <cuda_runtime.h>
#endif

#include "common/shared_arena.cuh"
