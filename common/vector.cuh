// Four neighbouring elements at once, widened to fp32: 16 bytes of fp32, 8 of fp16 or bf16.
// The address must be a multiple of that.
#pragma once

#include "common/device.cuh"

namespace al {

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

__device__ inline float4 load4(const float* p) { return *reinterpret_cast<const float4*>(p); }

__device__ inline float4 load4(const __half* p) {
  const uint2 raw = *reinterpret_cast<const uint2*>(p);
  const float2 lo = __half22float2(reinterpret_cast<const __half2&>(raw.x));
  const float2 hi = __half22float2(reinterpret_cast<const __half2&>(raw.y));
  return make_float4(lo.x, lo.y, hi.x, hi.y);
}

__device__ inline float4 load4(const __nv_bfloat16* p) {
  const uint2 raw = *reinterpret_cast<const uint2*>(p);
  const float2 lo = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(raw.x));
  const float2 hi = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(raw.y));
  return make_float4(lo.x, lo.y, hi.x, hi.y);
}

__device__ inline void store4(float* p, float4 x) { *reinterpret_cast<float4*>(p) = x; }

}  // namespace al
