// ld.global.nc.L1::no_allocate: a load of data that no one will want again.
#pragma once

#include <cuda_runtime.h>

namespace al::ptx {

// 16 bytes through the read-only path, without displacing anything in L1. `address` must not be
// written while the kernel runs.
__device__ inline uint4 load_streaming(const uint4* address) {
  uint4 value;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(address));
  return value;
}

}  // namespace al::ptx
