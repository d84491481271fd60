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

}  // namespace al::emulator
