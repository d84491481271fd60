// mma.sync: a warp multiplies two small matrices on the tensor cores, d += a · b, with d in fp32.
// All 32 lanes call it together; each holds a part ("fragment") of every matrix in registers.
// PTX ISA, "Matrix multiply-accumulate operation using mma instruction".
//
// With g = lane / 4, t = lane % 4 and E elements in a register (2 of 16 bits, 4 of 8 bits; element
// 0 in the lowest bits), a is [16, 8E] by rows, b is [8E, 8] by columns, d is [16, 8]:
// clang-format off
//   a[0]: row g,     columns E·t … E·t + E-1       b[0]: column g, rows E·t … E·t + E-1
//   a[1]: row g + 8, the same                      b[1]: column g, rows E·t + 4E …
//   a[2]: row g,     columns E·t + 4E …            d[0], d[1]: row g,     columns 2t, 2t + 1
//   a[3]: row g + 8, columns E·t + 4E …            d[2], d[3]: row g + 8, columns 2t, 2t + 1
// clang-format on
// So the d of one product, rounded to 16 bits in pairs, is half the a of the next, in the same
// lanes.
#pragma once

#include <cuda_fp8.h>

#include <cstdint>
#include <type_traits>

#include "common/device.cuh"
#ifdef AL_EMULATOR
#include "common/emulator/tensor_core.hpp"
#endif

namespace al {

// Whether mma_m16n8k32 is one instruction of the machine. Hopper's tensor cores take 8 bits from
// wgmma only: on sm_90 the compiler makes of this one conversions to fp16, two products into zeros
// and additions.
#if !defined(__CUDA_ARCH__) || (__CUDA_ARCH__ >= 890 && __CUDA_ARCH__ != 900)
inline constexpr bool kNativeMma8Bits = true;
#else
inline constexpr bool kNativeMma8Bits = false;
#endif

#ifdef AL_EMULATOR

template <typename T>
__forceinline__ void mma_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4],
                                  const std::uint32_t (&b)[2],
                                  emulator::Where where = emulator::Where::current()) {
  static_assert(sizeof(T) == 2);
  emulator::mma<T>(d, a, b, where);
}

template <typename T>
__forceinline__ void mma_m16n8k32(float (&d)[4], const std::uint32_t (&a)[4],
                                  const std::uint32_t (&b)[2],
                                  emulator::Where where = emulator::Where::current()) {
  static_assert(sizeof(T) == 1);
  emulator::mma<T>(d, a, b, where);
}

#else

// T: __half (sm_75: in two halves, and newer) or __nv_bfloat16 (sm_80 and newer).
template <typename T>
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4],
                                             const std::uint32_t (&b)[2]) {
  static_assert(std::is_same_v<T, __half> || std::is_same_v<T, __nv_bfloat16>);
  if constexpr (std::is_same_v<T, __half>) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    for (int half = 0; half < 2; ++half) {
      asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
          "{%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
          : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
          : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
    }
#endif
  } else {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    __trap();
#endif
  }
}

// T: __nv_fp8_e4m3 or __nv_fp8_e5m2; sm_89 and newer, elsewhere it traps.
template <typename T>
__device__ __forceinline__ void mma_m16n8k32(float (&d)[4], const std::uint32_t (&a)[4],
                                             const std::uint32_t (&b)[2]) {
  static_assert(std::is_same_v<T, __nv_fp8_e4m3> || std::is_same_v<T, __nv_fp8_e5m2>);
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890
  if constexpr (std::is_same_v<T, __nv_fp8_e4m3>) {
    asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k32.row.col.f32.e5m2.e5m2.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#else
  __trap();
#endif
}

#endif

}  // namespace al
