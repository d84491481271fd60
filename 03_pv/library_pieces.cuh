// Attention from a library's pieces, as a program that knows nothing better does it: cuBLAS for
// Q K^T, our softmax, cuBLAS for P V. A yardstick for the pipeline of our own three kernels.
#pragma once

#include "common/dispatch.cuh"
#include "common/kernel_shape.cuh"
#include "common/launch.cuh"
#include "common/stage.hpp"

namespace al {

// cuBLAS knows no mask: it multiplies all of P [B·Hq, Nq, Nkv], and so the entries that the mask
// hides, which the softmax leaves alone, must be zero. One block a row.
template <typename T>
__global__ void zero_masked(T* P, KernelShape shape) {
  T* p = P + size_t(blockIdx.x) * shape.Nkv;
  const int visible = max(0, shape.visible_keys(blockIdx.x % shape.Nq));
  for (int j = visible + threadIdx.x; j < shape.Nkv; j += blockDim.x) p[j] = T(0.0f);
}

inline void launch_zero_masked(const Problem& problem, void* P, Stream stream) {
  dispatch(problem.dtype, [&]<typename T>(T) {
    launch(zero_masked<T>,
           {.name = "zero_masked",
            .grid = dim3(static_cast<unsigned>(problem.q_rows())),
            .block = 128,
            .stream = stream},
           static_cast<T*>(P), KernelShape(problem));
  });
}

}  // namespace al
