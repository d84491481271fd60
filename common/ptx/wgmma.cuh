// wgmma: the four warps of a warpgroup (threads 128i … 128i + 127) multiply matrices on Hopper's
// tensor cores, d [64, N] += a [64, K] · b [N, K]ᵀ, d in fp32 registers, b in shared memory, a in
// either. K is 32 bytes: 16 elements of fp16 or bf16, 32 of FP8. It is asynchronous:
//
//   wgmma_fence();                    registers written so far may be used
//   wgmma_ss<__half>(d, a, b, true);  … any number of them, on the same d in their order
//   wgmma_commit();                   closes them into a group
//   wgmma_wait<0>();                  all groups but the newest 0 are done: d may be touched again,
//                                     and shared memory written
//
// What threads have stored in shared memory needs fence_proxy_async() and a barrier before.
//
// Thread 32w + l of the warpgroup, with g = l / 4 and t = l % 4, holds of d: rows 16w + g (d[4j],
// d[4j + 1]) and 16w + g + 8 (d[4j + 2], d[4j + 3]), columns 8j + 2t and + 1; and of an a in
// registers what mma.cuh says, for rows 16w … 16w + 15.
// PTX ISA, "Asynchronous warpgroup level matrix instructions". sm_90a; elsewhere it traps.
#pragma once

#include <cuda_fp8.h>

#include <cstdint>
#include <type_traits>

#include "common/device.cuh"
#include "common/ptx/shared_address.cuh"
#include "common/tensor_map.hpp"
#ifdef AL_EMULATOR
#include "common/emulator/wgmma.hpp"
#endif

namespace al {

// Where an operand lies in shared memory, in 64 bits: the address of its first element and two
// distances in bytes, each a multiple of 16.
//
// K-major (a row of the matrix is a run of memory): 8 rows of the swizzle's span lie one after the
// other, on a multiple of 8 · span; `stride` leads to the next 8 rows, `leading` is not used. The K
// elements of one instruction are 32 bytes of the span: the next instruction's begin 32 bytes on.
// Without swizzle: 8 rows of 16 bytes lie together (128 bytes), `leading` leads to the next 16
// bytes of the same rows, `stride` to the next 8 rows.
//
// MN-major (a column is a run; 16-bit types only): as TMA loads V. 8 columns of the span lie one
// after the other; `leading` leads to the next span of the same columns, `stride` to the next 8
// columns. Without swizzle, `stride` leads to the next 8 elements, `leading` to the next 8 columns.
__device__ __forceinline__ std::uint64_t wgmma_descriptor(const void* smem, Swizzle swizzle,
                                                          unsigned leading, unsigned stride) {
  const auto part = [](unsigned bytes) {
    return static_cast<std::uint64_t>((bytes & 0x3ffff) >> 4);
  };
  return part(shared_address(smem)) | part(leading) << 16 | part(stride) << 32 |
         static_cast<std::uint64_t>((4 - static_cast<unsigned>(swizzle)) % 4) << 62;
}

enum class Major { k, mn };

#ifdef AL_EMULATOR

__forceinline__ void wgmma_fence() { emulator::wgmma_fence(); }
__forceinline__ void wgmma_commit() { emulator::wgmma_commit(); }
template <int NEWER>
__forceinline__ void wgmma_wait(emulator::Where where = emulator::Where::current()) {
  emulator::wgmma_wait(NEWER, where);
}

template <typename TA, typename TB = TA, Major A_MAJOR = Major::k, Major B_MAJOR = Major::k,
          int HALF>
__forceinline__ void wgmma_ss(float (&d)[HALF], std::uint64_t a, std::uint64_t b, bool accumulate,
                              emulator::Where where = emulator::Where::current()) {
  emulator::wgmma<TA, TB>(d, 2 * HALF, nullptr, a, b, accumulate, A_MAJOR == Major::mn,
                          B_MAJOR == Major::mn, where);
}

template <typename TA, typename TB = TA, Major B_MAJOR = Major::k, int HALF>
__forceinline__ void wgmma_rs(float (&d)[HALF], const std::uint32_t (&a)[4], std::uint64_t b,
                              bool accumulate, emulator::Where where = emulator::Where::current()) {
  const std::uint32_t copy[4] = {a[0], a[1], a[2], a[3]};
  emulator::wgmma<TA, TB>(d, 2 * HALF, copy, 0, b, accumulate, false, B_MAJOR == Major::mn, where);
}

template <typename TA, typename TB = TA, Major A_MAJOR = Major::k, Major B_MAJOR = Major::k,
          int EIGHTHS>
__forceinline__ void wgmma_ss(float (&d)[EIGHTHS][4], std::uint64_t a, std::uint64_t b,
                              bool accumulate, emulator::Where where = emulator::Where::current()) {
  wgmma_ss<TA, TB, A_MAJOR, B_MAJOR>(reinterpret_cast<float(&)[4 * EIGHTHS]>(d), a, b, accumulate,
                                     where);
}
template <typename TA, typename TB = TA, Major B_MAJOR = Major::k, int EIGHTHS>
__forceinline__ void wgmma_rs(float (&d)[EIGHTHS][4], const std::uint32_t (&a)[4], std::uint64_t b,
                              bool accumulate, emulator::Where where = emulator::Where::current()) {
  wgmma_rs<TA, TB, B_MAJOR>(reinterpret_cast<float(&)[4 * EIGHTHS]>(d), a, b, accumulate, where);
}

#else

__device__ __forceinline__ void wgmma_fence() {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.fence.sync.aligned;" : : : "memory");
#endif
}

__device__ __forceinline__ void wgmma_commit() {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.commit_group.sync.aligned;" : : : "memory");
#endif
}

template <int NEWER>
__device__ __forceinline__ void wgmma_wait() {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(NEWER) : "memory");
#endif
}

#include "common/ptx/wgmma_tables.inc"

namespace wgmma_detail {

template <typename TA, typename TB, typename A, typename B>
constexpr bool kTypes = std::is_same_v<TA, A>&& std::is_same_v<TB, B>;

// An operand's number is part of the text, so there is an instruction of each kind for each N.
#define AL_WGMMA_ASM(N, K, TYPES, OPERANDS, SCALE, MAJORS, ...)                  \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, " SCALE                         \
               ", 0;\nwgmma.mma_async.sync.aligned.m64n" #N "k" K ".f32." TYPES  \
               " {" AL_WGMMA_TEXT_##N "}, " OPERANDS ", p, 1, 1" MAJORS ";\n}\n" \
               : AL_WGMMA_D_##N                                                  \
               : __VA_ARGS__)
#define AL_WGMMA_TYPES(N, OPERANDS, SCALE, MAJORS, ...)                       \
  if constexpr (kTypes<TA, TB, __half, __half>) {                             \
    AL_WGMMA_ASM(N, "16", "f16.f16", OPERANDS, SCALE, MAJORS, __VA_ARGS__);   \
  } else if constexpr (kTypes<TA, TB, __nv_bfloat16, __nv_bfloat16>) {        \
    AL_WGMMA_ASM(N, "16", "bf16.bf16", OPERANDS, SCALE, MAJORS, __VA_ARGS__); \
  } else if constexpr (kTypes<TA, TB, __nv_fp8_e4m3, __nv_fp8_e4m3>) {        \
    AL_WGMMA_ASM(N, "32", "e4m3.e4m3", OPERANDS, SCALE, "", __VA_ARGS__);     \
  } else if constexpr (kTypes<TA, TB, __nv_fp8_e4m3, __nv_fp8_e5m2>) {        \
    AL_WGMMA_ASM(N, "32", "e4m3.e5m2", OPERANDS, SCALE, "", __VA_ARGS__);     \
  } else if constexpr (kTypes<TA, TB, __nv_fp8_e5m2, __nv_fp8_e4m3>) {        \
    AL_WGMMA_ASM(N, "32", "e5m2.e4m3", OPERANDS, SCALE, "", __VA_ARGS__);     \
  } else {                                                                    \
    static_assert(kTypes<TA, TB, __nv_fp8_e5m2, __nv_fp8_e5m2>);              \
    AL_WGMMA_ASM(N, "32", "e5m2.e5m2", OPERANDS, SCALE, "", __VA_ARGS__);     \
  }

template <int N>
struct Shape;

#define AL_WGMMA_SHAPE(N, O0, O1, O2, O3, O4, O5, O6)                                              \
  template <>                                                                                      \
  struct Shape<N> {                                                                                \
    template <typename TA, typename TB, bool A_MN, bool B_MN>                                      \
    static __device__ __forceinline__ void ss(float (&d)[N / 2], std::uint64_t a, std::uint64_t b, \
                                              int accumulate) {                                    \
      AL_WGMMA_TYPES(N, "%" #O0 ", %" #O1, "%" #O2, ", %" #O3 ", %" #O4, "l"(a), "l"(b),           \
                     "r"(accumulate), "n"(A_MN), "n"(B_MN))                                        \
    }                                                                                              \
    template <typename TA, typename TB, bool B_MN>                                                 \
    static __device__ __forceinline__ void rs(float (&d)[N / 2], const std::uint32_t (&a)[4],      \
                                              std::uint64_t b, int accumulate) {                   \
      AL_WGMMA_TYPES(N, "{%" #O0 ", %" #O1 ", %" #O2 ", %" #O3 "}, %" #O4, "%" #O5, ", %" #O6,     \
                     "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate),          \
                     "n"(B_MN))                                                                    \
    }                                                                                              \
  };
AL_WGMMA_SHAPES(AL_WGMMA_SHAPE)

}  // namespace wgmma_detail

// d [64, 2 · HALF] = a · bᵀ, + d where `accumulate`. TA, TB: __half, __nv_bfloat16 (both the same),
// __nv_fp8_e4m3 or __nv_fp8_e5m2. `a`, `b`: descriptors.
template <typename TA, typename TB = TA, Major A_MAJOR = Major::k, Major B_MAJOR = Major::k,
          int HALF>
__device__ __forceinline__ void wgmma_ss(float (&d)[HALF], std::uint64_t a, std::uint64_t b,
                                         bool accumulate) {
  static_assert(sizeof(TA) == 2 || (A_MAJOR == Major::k && B_MAJOR == Major::k));
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  wgmma_detail::Shape<2 * HALF>::template ss<TA, TB, A_MAJOR == Major::mn, B_MAJOR == Major::mn>(
      d, a, b, accumulate);
#else
  __trap();
#endif
}

// The same with a in registers, which must not be written before the wait.
template <typename TA, typename TB = TA, Major B_MAJOR = Major::k, int HALF>
__device__ __forceinline__ void wgmma_rs(float (&d)[HALF], const std::uint32_t (&a)[4],
                                         std::uint64_t b, bool accumulate) {
  static_assert(sizeof(TA) == 2 || B_MAJOR == Major::k);
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  wgmma_detail::Shape<2 * HALF>::template rs<TA, TB, B_MAJOR == Major::mn>(d, a, b, accumulate);
#else
  __trap();
#endif
}

// The same for accumulators [N / 8][4], as mma.cuh has them.
template <typename TA, typename TB = TA, Major A_MAJOR = Major::k, Major B_MAJOR = Major::k,
          int EIGHTHS>
__device__ __forceinline__ void wgmma_ss(float (&d)[EIGHTHS][4], std::uint64_t a, std::uint64_t b,
                                         bool accumulate) {
  wgmma_ss<TA, TB, A_MAJOR, B_MAJOR>(reinterpret_cast<float(&)[4 * EIGHTHS]>(d), a, b, accumulate);
}
template <typename TA, typename TB = TA, Major B_MAJOR = Major::k, int EIGHTHS>
__device__ __forceinline__ void wgmma_rs(float (&d)[EIGHTHS][4], const std::uint32_t (&a)[4],
                                         std::uint64_t b, bool accumulate) {
  wgmma_rs<TA, TB, B_MAJOR>(reinterpret_cast<float(&)[4 * EIGHTHS]>(d), a, b, accumulate);
}

#endif

}  // namespace al
