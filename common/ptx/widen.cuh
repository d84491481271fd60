// 8 bits to fp16, which holds every number of e4m3 and e5m2: a register of four becomes two of two.
// PTX ISA, "cvt"; the instruction is there from sm_89 on, before that it is a dozen others.
#pragma once

#include <cuda_fp8.h>

#include <cstdint>
#include <type_traits>

#include "common/device.cuh"

namespace al {

// The two numbers in the lower or upper half of a register, by integers. e5m2 is fp16's upper byte.
// e4m3 has its bits one place lower and counts its exponent from 7, where fp16 counts from 15: a
// factor of 2^8, which a multiplication brings, for subnormal numbers too. Its only NaN must stay
// one.
template <typename T>
__host__ __device__ __forceinline__ std::uint32_t widen_half(std::uint32_t four, int half) {
  const std::uint32_t two = four >> 16 * half;
  const std::uint32_t bytes = (two & 0xff) | (two & 0xff00) << 8;  // one in each half
  if constexpr (std::is_same_v<T, __nv_fp8_e5m2>) return bytes << 8;
  const std::uint32_t magnitude = bytes & 0x007f007f;
  const std::uint32_t nan = (magnitude + 0x00010001) & 0x00800080;  // 0x80 where it is 0x7f
  const std::uint32_t bits = (bytes & 0x00800080) << 8 | magnitude << 7;
  const auto half_of = [](std::uint32_t x) {
    return __ushort_as_half(static_cast<unsigned short>(x));
  };
  const __half2 wide = __hmul2(__halves2half2(half_of(bits), half_of(bits >> 16)),
                               __halves2half2(half_of(0x5c00), half_of(0x5c00)));  // 2^8
  return (__half_as_ushort(__low2half(wide)) | std::uint32_t{__half_as_ushort(__high2half(wide))}
                                                   << 16) |
         nan * 0xfc;
}

template <typename T>
__host__ __device__ __forceinline__ void widen(std::uint32_t four, std::uint32_t& lower,
                                               std::uint32_t& upper) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
  if constexpr (std::is_same_v<T, __nv_fp8_e4m3>) {
    asm("{.reg .b16 l, u; mov.b32 {l, u}, %2; "
        "cvt.rn.f16x2.e4m3x2 %0, l; cvt.rn.f16x2.e4m3x2 %1, u;}"
        : "=r"(lower), "=r"(upper)
        : "r"(four));
  } else {
    asm("{.reg .b16 l, u; mov.b32 {l, u}, %2; "
        "cvt.rn.f16x2.e5m2x2 %0, l; cvt.rn.f16x2.e5m2x2 %1, u;}"
        : "=r"(lower), "=r"(upper)
        : "r"(four));
  }
#else
  lower = widen_half<T>(four, 0);
  upper = widen_half<T>(four, 1);
#endif
}

}  // namespace al
