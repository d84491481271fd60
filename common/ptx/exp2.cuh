// ex2.approx: 2^x in one instruction of the special-function unit.
#pragma once

#include "common/device.cuh"

namespace al {

// 2^x to two units in the last place; 0 for x = -inf and wherever the result would be denormal.
// exp2f itself takes four instructions, three of them for the sake of denormals.
__device__ __forceinline__ float fast_exp2(float x) {
#ifdef AL_EMULATOR
  return std::exp2(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

}  // namespace al
