// atom.acq_rel.gpu.add: an atomic addition that also orders memory. What this thread has written,
// and what it has learnt of others at a barrier, can be seen by whoever finds the sum changed; and
// this thread sees what those before it had written. One instruction for what __threadfence() on
// both sides of an atomicAdd() would do, and those are of the stronger, slower kind (fence.sc).
// PTX ISA, "Memory consistency model".
#pragma once

#include "common/device.cuh"

namespace al {

__device__ __forceinline__ unsigned atomic_add_acq_rel(unsigned* address, unsigned value) {
#ifdef AL_EMULATOR
  __threadfence();
  const unsigned before = atomicAdd(address, value);
  __threadfence();
  return before;
#else
  unsigned before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;"
               : "=r"(before)
               : "l"(address), "r"(value)
               : "memory");
  return before;
#endif
}

}  // namespace al
