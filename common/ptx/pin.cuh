// What the compiler must not move: registers that an asynchronous instruction reads or writes.
#pragma once

#include "common/device.cuh"

namespace al {

// Every use of these registers before this line stays before it, and every use after it stays
// after. No instruction is made of it. wgmma's wait names no registers, so nothing else tells the
// compiler that it is about them.
template <int ROWS, int COLUMNS>
__device__ __forceinline__ void pin([[maybe_unused]] float (&registers)[ROWS][COLUMNS]) {
#ifndef AL_EMULATOR
#pragma unroll
  for (int i = 0; i < ROWS; ++i) {
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) asm volatile("" : "+f"(registers[i][j])::"memory");
  }
#endif
}

}  // namespace al
