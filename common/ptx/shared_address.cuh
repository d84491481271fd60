// The address that PTX wants of something in shared memory: 32 bits, counted from the block's own.
#pragma once

#include "common/device.cuh"

namespace al {

__device__ __forceinline__ unsigned shared_address(const void* smem) {
  return static_cast<unsigned>(__cvta_generic_to_shared(smem));
}

}  // namespace al
