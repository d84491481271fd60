// Elements of the tensor cores' formats, many at a time, to fp32: exact.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace al::emulator {

// Written so that the compiler can do several at once: the library's own conversions branch.
inline float half_to_float(std::uint16_t h) {
  // Exponent and mantissa in their places in an fp32, whose exponent counts from 127, not from 15.
  float magnitude = std::bit_cast<float>((h & 0x7fffu) << 13) * 0x1p112f;
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(magnitude);
  const std::uint32_t infinite = magnitude >= 65536.0f ? 0x7f800000u : 0u;  // or a NaN
  return std::bit_cast<float>(bits | infinite | (h & 0x8000u) << 16);
}

inline const std::array<float, 256>& fp8_values(__nv_fp8_interpretation_t kind) {
  static const auto tables = [] {
    std::array<std::array<float, 256>, 2> t;
    for (int i = 0; i < 256; ++i) {
      const auto byte = static_cast<__nv_fp8_storage_t>(i);
      t[0][i] = half_to_float(__nv_cvt_fp8_to_halfraw(byte, __NV_E4M3).x);
      t[1][i] = half_to_float(__nv_cvt_fp8_to_halfraw(byte, __NV_E5M2).x);
    }
    return t;
  }();
  return tables[kind == __NV_E5M2];
}

// `count` elements of type T at `from`.
template <typename T>
void decode(const void* from, std::size_t count, float* to) {
  const auto* words = static_cast<const std::uint16_t*>(from);
  const auto* bytes = static_cast<const std::uint8_t*>(from);
  if constexpr (std::is_same_v<T, __half>) {
    for (std::size_t i = 0; i < count; ++i) to[i] = half_to_float(words[i]);
  } else if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    for (std::size_t i = 0; i < count; ++i) {
      to[i] = std::bit_cast<float>(static_cast<std::uint32_t>(words[i]) << 16);
    }
  } else {
    static_assert(std::is_same_v<T, __nv_fp8_e4m3> || std::is_same_v<T, __nv_fp8_e5m2>);
    const auto& values = fp8_values(std::is_same_v<T, __nv_fp8_e4m3> ? __NV_E4M3 : __NV_E5M2);
    for (std::size_t i = 0; i < count; ++i) to[i] = values[bytes[i]];
  }
}

}  // namespace al::emulator
