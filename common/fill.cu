// S and P as inputs, made where they are used: on the device. data.cpp makes the same bits of them,
// row by row, for the oracle.
#include <algorithm>

#include "common/data.hpp"
#include "common/hash_data.hpp"
#include "common/kernel_shape.cuh"
#include "common/launch.cuh"

#ifdef AL_EMULATOR
#include <cstring>

#include "common/parallel.hpp"
#else
#include "common/dispatch.cuh"
#endif

namespace al {

#ifdef AL_EMULATOR

// On the host: the numbers are input_row's own.
void fill_on_device(const Problem& problem, Tensor tensor, const HostInputs& inputs, void* data) {
  const DType dtype = tensor == Tensor::s ? problem.score_dtype() : problem.dtype;
  const std::size_t row_bytes = problem.kv_seq * bytes_of(dtype);
  auto* const bytes = static_cast<std::byte*>(data);
  std::memset(bytes, 0xff, problem.q_rows() * row_bytes);
  emulator::forget_global(data);

  const auto visible_bytes = [&](std::int64_t row) {
    return problem.visible_keys(static_cast<int>(row % problem.seq)) * bytes_of(dtype);
  };
  parallel_for(problem.q_rows(), 64, 0, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const auto values = encode(dtype, input_row(problem, tensor, inputs, row));
      std::memcpy(bytes + row * row_bytes, values.data(), visible_bytes(row));
    }
  });
  for (std::int64_t row = 0; row < problem.q_rows(); ++row) {
    emulator::note_written(bytes + row * row_bytes, visible_bytes(row));
  }
}

#else

namespace {

constexpr int kThreads = 256;

__device__ float rounded(float x, float) { return x; }
__device__ __half rounded(float x, __half) { return __float2half_rn(x); }
__device__ __nv_bfloat16 rounded(float x, __nv_bfloat16) { return __float2bfloat16_rn(x); }

// One block a row, [rows, Nkv]. The poison is there already.
template <typename T>
__global__ void fill_rows(TensorData values, KernelShape shape, std::int64_t rows, T* data) {
  for (std::int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const int visible = shape.visible_keys(static_cast<int>(row % shape.Nq));
    for (int j = threadIdx.x; j < visible; j += blockDim.x) {
      const std::int64_t at = row * shape.Nkv + j;
      data[at] = rounded(values[at], T{});
    }
  }
}

}  // namespace

void fill_on_device(const Problem& problem, Tensor tensor, const HostInputs& inputs, void* data) {
  const DType dtype = tensor == Tensor::s ? problem.score_dtype() : problem.dtype;
  const TensorData values(tensor, inputs.seed, inputs.distribution == Distribution::outliers);
  const std::int64_t rows = problem.q_rows();
  check(cudaMemset(data, 0xff, problem.score_elements() * bytes_of(dtype)), "cudaMemset");
  const LaunchConfig config{.name = "fill_rows",
                            .grid = dim3(std::min<std::int64_t>(rows, INT32_MAX)),
                            .block = kThreads};
  dispatch(dtype, [&](auto element) {
    launch(fill_rows<decltype(element)>, config, values, KernelShape(problem), rows,
           static_cast<decltype(element)*>(data));
  });
  synchronize();
}

#endif

}  // namespace al
