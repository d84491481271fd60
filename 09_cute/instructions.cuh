// The instructions the sm_80 kernel is made of, by the names CuTe's atoms take.
//
// On a GPU they are CUTLASS's own. In the emulator each is an op of ours that does the same to
// memory and registers, and whose traits (which thread holds which element) are inherited from
// CUTLASS's: so the layouts under test there are the ones that ship.
#pragma once

// CuTe knows WGMMA's unusual widths (N = 80, 176, …) only where it is told so before it is
// included; else it quietly takes a narrower instruction, several times.
#define CUTE_SM90_EXTENDED_MMA_SHAPES_ENABLED

#include "common/device.cuh"
// CuTe comes after it: it needs the CUDA language.

#include <cute/tensor.hpp>
#include <type_traits>

#ifdef AL_EMULATOR
#include "common/ptx/cp_async.cuh"
#include "common/ptx/ldmatrix.cuh"
#include "common/ptx/mma.cuh"
#endif

namespace al::cute_attention {

using cute::bfloat16_t;
using cute::half_t;

#ifndef AL_EMULATOR

// D [16, 8] = A [16, 16] · B [8, 16]ᵀ + C, by the 32 threads of a warp.
template <typename T>
using MmaOp = std::conditional_t<std::is_same_v<T, half_t>, cute::SM80_16x8x16_F32F16F16F32_TN,
                                 cute::SM80_16x8x16_F32BF16BF16F32_TN>;
// Four 8 x 8 matrices from shared memory into the registers of a warp, where MmaOp wants them; and
// the same with each matrix transposed on the way.
using LdMatrix = cute::SM75_U32x4_LDSM_N;
using LdMatrixTransposed = cute::SM75_U16x8_LDSM_T;
// cp.async of 16 bytes, or of 16 zeros.
using CpAsync = cute::SM80_CP_ASYNC_CACHEGLOBAL_ZFILL<cute::uint128_t>;

using cute::cp_async_fence;
using cute::cp_async_wait;

#else

template <typename T>
struct MmaOp {
  using Native = std::conditional_t<std::is_same_v<T, half_t>, __half, __nv_bfloat16>;
  using DRegisters = float[4];
  using ARegisters = std::uint32_t[4];
  using BRegisters = std::uint32_t[2];
  using CRegisters = float[4];

  static void fma(float& d0, float& d1, float& d2, float& d3, const std::uint32_t& a0,
                  const std::uint32_t& a1, const std::uint32_t& a2, const std::uint32_t& a3,
                  const std::uint32_t& b0, const std::uint32_t& b1, const float& c0,
                  const float& c1, const float& c2, const float& c3) {
    float d[4] = {c0, c1, c2, c3};
    const std::uint32_t a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
    mma_m16n8k16<Native>(d, a, b);
    d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3];
  }
};

template <bool TRANSPOSED>
struct LdMatrixOp {
  using SRegisters = cute::uint128_t[1];
  using DRegisters = std::uint32_t[4];

  static void copy(const cute::uint128_t& row, std::uint32_t& d0, std::uint32_t& d1,
                   std::uint32_t& d2, std::uint32_t& d3) {
    std::uint32_t d[4];
    TRANSPOSED ? ldmatrix_x4_trans(d, &row) : ldmatrix_x4(d, &row);
    d0 = d[0], d1 = d[1], d2 = d[2], d3 = d[3];
  }
};
using LdMatrix = LdMatrixOp<false>;
using LdMatrixTransposed = LdMatrixOp<true>;

struct CpAsync {
  using SRegisters = cute::uint128_t[1];
  using DRegisters = cute::uint128_t[1];

  static void copy(const cute::uint128_t& gmem, cute::uint128_t& smem, bool pred) {
    cp_async_16(&smem, &gmem, pred ? 16 : 0);
  }
};

inline void cp_async_fence() { cp_async_commit(); }
using al::cp_async_wait;

#endif

}  // namespace al::cute_attention

#ifdef AL_EMULATOR
namespace cute {

template <>
struct MMA_Traits<al::cute_attention::MmaOp<half_t>> : MMA_Traits<SM80_16x8x16_F32F16F16F32_TN> {};
template <>
struct MMA_Traits<al::cute_attention::MmaOp<bfloat16_t>>
    : MMA_Traits<SM80_16x8x16_F32BF16BF16F32_TN> {};
template <>
struct Copy_Traits<al::cute_attention::LdMatrix> : Copy_Traits<SM75_U32x4_LDSM_N> {};
template <>
struct Copy_Traits<al::cute_attention::LdMatrixTransposed> : Copy_Traits<SM75_U16x8_LDSM_T> {};

// Like CUTLASS's traits of the ZFILL op: a predicate goes with the copy.
template <>
struct Copy_Traits<al::cute_attention::CpAsync> {
  using ThrID = Layout<_1>;
  using SrcLayout = Layout<Shape<_1, _128>>;
  using DstLayout = SrcLayout;
  using RefLayout = SrcLayout;

  bool pred = true;

  constexpr Copy_Traits with(bool p) const { return {p}; }

  template <typename S, typename SLayout, typename D, typename DLayout>
  friend void copy_unpack(const Copy_Traits& traits, const Tensor<S, SLayout>& src,
                          Tensor<D, DLayout>& dst) {
    al::cute_attention::CpAsync::copy(recast<const uint128_t>(src)[0], recast<uint128_t>(dst)[0],
                                      traits.pred);
  }
};

}  // namespace cute
#endif
