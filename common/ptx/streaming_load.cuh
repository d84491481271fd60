// ld.global.L1::no_allocate.L2::128B: a load of data that no one will want again.
#pragma once

#include "common/device.cuh"

namespace al::ptx {

// 16 or 8 bytes, without displacing anything in L1. L2 is told to fetch whole lines of 128 bytes:
// where a warp asks for one in two halves, the second is then there already. Not ld.global.nc, the
// read-only path: it is for what nobody writes while the kernel runs, and a kernel that begins
// before the one in front has ended (dependent_launch.cuh) reads what is written meanwhile.
__device__ __forceinline__ uint4 load_streaming(const uint4* address) {
#ifdef AL_EMULATOR
  return *address;
#else
  uint4 value;
  asm volatile("ld.global.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(address));
  return value;
#endif
}

__device__ __forceinline__ uint2 load_streaming(const uint2* address) {
#ifdef AL_EMULATOR
  return *address;
#else
  uint2 value;
  asm volatile("ld.global.L1::no_allocate.L2::128B.v2.u32 {%0, %1}, [%2];"
               : "=r"(value.x), "=r"(value.y)
               : "l"(address));
  return value;
#endif
}

}  // namespace al::ptx
