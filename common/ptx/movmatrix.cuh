// movmatrix: a warp transposes an 8 × 8 matrix of 16-bit elements that lies in its registers. Lane
// 4i + t holds columns 2t and 2t + 1 of row i, before and after; so the columns of one product of
// mma.sync become the rows that the next one takes. sm_75 and newer.
// PTX ISA, "Warp-level matrix transpose instruction: movmatrix".
#pragma once

#include <cstdint>

#include "common/device.cuh"
#ifdef AL_EMULATOR
#include "common/emulator/tensor_core.hpp"
#endif

namespace al {

#ifdef AL_EMULATOR
__forceinline__ std::uint32_t movmatrix_trans(std::uint32_t rows,
                                              emulator::Where where = emulator::Where::current()) {
  return emulator::movmatrix_trans(rows, where);
}
#else
__device__ __forceinline__ std::uint32_t movmatrix_trans(std::uint32_t rows) {
  std::uint32_t columns;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(columns) : "r"(rows));
  return columns;
}
#endif

}  // namespace al
