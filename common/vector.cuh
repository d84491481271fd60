// One element, or four neighbours at once (16 bytes of fp32, 8 of fp16 or bf16, 4 of e4m3 or e5m2,
// the address a multiple of that), widened to fp32 on the way in and rounded to nearest on the way
// out; in 8 bits never beyond the largest number.
#pragma once

#include "common/device.cuh"

namespace al {

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }

__device__ __forceinline__ float to_float(__nv_fp8_e4m3 x) { return static_cast<float>(x); }
__device__ __forceinline__ float to_float(__nv_fp8_e5m2 x) { return static_cast<float>(x); }

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

__device__ inline float4 load4(const __nv_fp8_e4m3* p) {
  return static_cast<float4>(*reinterpret_cast<const __nv_fp8x4_e4m3*>(p));
}
__device__ inline float4 load4(const __nv_fp8_e5m2* p) {
  return static_cast<float4>(*reinterpret_cast<const __nv_fp8x4_e5m2*>(p));
}

// from_float<T>(x): the T nearest to x.
template <typename T>
__device__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __half from_float<__half>(float x) {
  return __float2half(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16(x);
}

template <>
__device__ __forceinline__ __nv_fp8_e4m3 from_float<__nv_fp8_e4m3>(float x) {
  return __nv_fp8_e4m3(x);
}
template <>
__device__ __forceinline__ __nv_fp8_e5m2 from_float<__nv_fp8_e5m2>(float x) {
  return __nv_fp8_e5m2(x);
}

__device__ inline void store4(float* p, float4 x) { *reinterpret_cast<float4*>(p) = x; }

__device__ inline void store4(__half* p, float4 x) {
  uint2 raw;
  reinterpret_cast<__half2&>(raw.x) = __floats2half2_rn(x.x, x.y);
  reinterpret_cast<__half2&>(raw.y) = __floats2half2_rn(x.z, x.w);
  *reinterpret_cast<uint2*>(p) = raw;
}

__device__ inline void store4(__nv_bfloat16* p, float4 x) {
  uint2 raw;
  reinterpret_cast<__nv_bfloat162&>(raw.x) = __floats2bfloat162_rn(x.x, x.y);
  reinterpret_cast<__nv_bfloat162&>(raw.y) = __floats2bfloat162_rn(x.z, x.w);
  *reinterpret_cast<uint2*>(p) = raw;
}

__device__ inline void store4(__nv_fp8_e4m3* p, float4 x) {
  *reinterpret_cast<__nv_fp8x4_e4m3*>(p) = __nv_fp8x4_e4m3(x);
}
__device__ inline void store4(__nv_fp8_e5m2* p, float4 x) {
  *reinterpret_cast<__nv_fp8x4_e5m2*>(p) = __nv_fp8x4_e5m2(x);
}

}  // namespace al
