// threadIdx and its companions. Kernels see them as constants (cuda.hpp); here, where that header
// is not included, the same variables can be set.
#include "common/emulator/indices.hpp"

constinit thread_local uint3 threadIdx{}, blockIdx{};
constinit thread_local dim3 blockDim, gridDim;

namespace al::emulator {

void set_thread(uint3 thread) { threadIdx = thread; }

void set_block(dim3 grid_size, dim3 block_size, uint3 block) {
  gridDim = grid_size;
  blockDim = block_size;
  blockIdx = block;
}

bool is_index(std::size_t address) {
  const auto in = [address](const void* variable, std::size_t bytes) {
    return address - reinterpret_cast<std::size_t>(variable) < bytes;
  };
  return in(&threadIdx, sizeof threadIdx) || in(&blockIdx, sizeof blockIdx) ||
         in(&blockDim, sizeof blockDim) || in(&gridDim, sizeof gridDim);
}

}  // namespace al::emulator
