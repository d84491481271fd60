// What cub::BlockReduce does, for the emulator: each warp reduces by shuffles, then thread 0
// reduces what the warps left in shared memory.
#pragma once

#include "common/emulator/cuda.hpp"

namespace cub {

// A block of THREADS threads in x alone, a multiple of 32; T has at most 8 bytes.
template <typename T, int THREADS>
class BlockReduce {
  static_assert(THREADS % 32 == 0);
  static constexpr int WARPS = THREADS / 32;

 public:
  // In shared memory. Between two reductions that use the same one there must be a barrier.
  struct TempStorage {
    T of_warp[WARPS];
  };

  explicit BlockReduce(TempStorage& storage) : storage_(storage) {}

  // op over the values of all threads, in no promised order. Only thread 0 gets the result.
  template <typename Op>
  T Reduce(T value, Op op) {
    for (int lanes = 16; lanes > 0; lanes /= 2) {
      value = op(value, __shfl_down_sync(0xffffffff, value, lanes));
    }
    if (threadIdx.x % 32 == 0) storage_.of_warp[threadIdx.x / 32] = value;
    __syncthreads();  // every warp's part is there before thread 0 reads them
    if (threadIdx.x == 0) {
      for (int warp = 1; warp < WARPS; ++warp) value = op(value, storage_.of_warp[warp]);
    }
    return value;
  }

 private:
  TempStorage& storage_;
};

}  // namespace cub
