// Barriers of part of a block, by number: 1 … 15 (__syncthreads is number 0). `threads` is how many
// come in all, whole warps, those that only arrive included.
// PTX ISA, "bar, barrier".
#pragma once

#include "common/device.cuh"
#ifdef AL_EMULATOR
#include "common/emulator/hopper.hpp"
#endif

namespace al {

#ifdef AL_EMULATOR

__forceinline__ void named_barrier_sync(int id, int threads,
                                        emulator::Where where = emulator::Where::current()) {
  emulator::named_barrier(id, threads, true, where);
}
__forceinline__ void named_barrier_arrive(int id, int threads,
                                          emulator::Where where = emulator::Where::current()) {
  emulator::named_barrier(id, threads, false, where);
}

#else

// Comes, and waits for the others.
__device__ __forceinline__ void named_barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" : : "r"(id), "r"(threads) : "memory");
}

// Comes, and goes on.
__device__ __forceinline__ void named_barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" : : "r"(id), "r"(threads) : "memory");
}

#endif

}  // namespace al
