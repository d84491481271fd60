// a · b + c for two 16-bit numbers at once. bf16 has the instruction since sm_80; before, fp32 does
// it.
#pragma once

#include "common/device.cuh"

namespace al {

__device__ __forceinline__ __half2 fma2(__half2 a, __half2 b, __half2 c) {
  return __hfma2(a, b, c);
}

__device__ __forceinline__ __nv_bfloat162 fma2(__nv_bfloat162 a, __nv_bfloat162 b,
                                               __nv_bfloat162 c) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  return __floats2bfloat162_rn(fmaf(__low2float(a), __low2float(b), __low2float(c)),
                               fmaf(__high2float(a), __high2float(b), __high2float(c)));
#else
  return __hfma2(a, b, c);
#endif
}

}  // namespace al
