// The instructions the sm_90a kernel is made of, by the names CuTe's atoms take: on a GPU
// CUTLASS's own, in the emulator ops of ours with CUTLASS's traits, as in instructions.cuh.
#pragma once

#include "09_cute/instructions.cuh"
#include "common/ptx/wgmma.cuh"

#ifdef AL_EMULATOR
#include <tuple>
#endif

namespace al::cute_attention {

// Elsewhere the kernel's body is left out: whoever launches it asks device().sm first.
#if defined(AL_EMULATOR) || !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr bool kHasWgmma = true;
#else
constexpr bool kHasWgmma = false;
#endif

// D [64, N] (+)= A [64, 16] · B [N, 16]ᵀ by the 128 threads of a warpgroup, asynchronously. A and B
// lie in shared memory, both with their 16 side by side ...
template <typename T, int N>
using NativeWgmmaSS =
    decltype(cute::GMMA::ss_op_selector<T, T, float,
                                        cute::Shape<cute::_64, cute::Int<N>, cute::_16>>());
// ... or A in registers, and B in shared memory with its N side by side.
template <typename T, int N>
using NativeWgmmaRS =
    decltype(cute::GMMA::rs_op_selector<T, T, float,
                                        cute::Shape<cute::_64, cute::Int<N>, cute::_16>,
                                        cute::GMMA::Major::K, cute::GMMA::Major::MN>());

#ifndef AL_EMULATOR

template <typename T, int N>
using WgmmaSS = NativeWgmmaSS<T, N>;
template <typename T, int N>
using WgmmaRS = NativeWgmmaRS<T, N>;
// Four 8 x 8 matrices from the registers of a warp, as WGMMA leaves them, to shared memory.
using StMatrix = cute::SM90_U32x4_STSM_N;

// One thread of the warp, chosen so that the compiler knows there is one.
__device__ inline bool is_elected() { return cute::elect_one_sync(); }

#else

template <typename Native>
struct EmulatedWgmma;

template <template <cute::GMMA::Major, cute::GMMA::Major, cute::GMMA::ScaleIn, cute::GMMA::ScaleIn>
          typename Op,
          cute::GMMA::Major A_MAJOR, cute::GMMA::Major B_MAJOR>
struct EmulatedWgmma<Op<A_MAJOR, B_MAJOR, cute::GMMA::ScaleIn::One, cute::GMMA::ScaleIn::One>> {
  using Native = Op<A_MAJOR, B_MAJOR, cute::GMMA::ScaleIn::One, cute::GMMA::ScaleIn::One>;
  using DRegisters = void;
  using ARegisters = typename Native::ARegisters;
  using BRegisters = typename Native::BRegisters;
  using CRegisters = typename Native::CRegisters;
  using T = std::conditional_t<std::is_same_v<typename cute::MMA_Traits<Native>::ValTypeA, half_t>,
                               __half, __nv_bfloat16>;
  static constexpr int N = 2 * std::extent_v<CRegisters>;
  static constexpr bool B_MN = B_MAJOR == cute::GMMA::Major::MN;

  // CuTe passes registers one by one; the accumulators are N / 2 in a row, the last argument says
  // whether to add to them.
  static constexpr auto fma = [](auto&&... arguments) {
    const auto all = std::forward_as_tuple(arguments...);
    const bool accumulate = std::get<sizeof...(arguments) - 1>(all) == cute::GMMA::ScaleOut::One;
    const auto where = emulator::Where::current();
    if constexpr (std::is_same_v<ARegisters, std::uint64_t[1]>) {
      emulator::wgmma<T, T>(&std::get<2>(all), N, nullptr, std::get<0>(all), std::get<1>(all),
                            accumulate, A_MAJOR == cute::GMMA::Major::MN, B_MN, where);
    } else {
      const std::uint32_t a[4] = {std::get<0>(all), std::get<1>(all), std::get<2>(all),
                                  std::get<3>(all)};
      emulator::wgmma<T, T>(&std::get<5>(all), N, a, 0, std::get<4>(all), accumulate, false, B_MN,
                            where);
    }
  };
};
template <typename T, int N>
using WgmmaSS = EmulatedWgmma<NativeWgmmaSS<T, N>>;
template <typename T, int N>
using WgmmaRS = EmulatedWgmma<NativeWgmmaRS<T, N>>;

struct StMatrix {
  using SRegisters = std::uint32_t[4];
  using DRegisters = cute::uint128_t[1];

  static void copy(const std::uint32_t& r0, const std::uint32_t& r1, const std::uint32_t& r2,
                   const std::uint32_t& r3, cute::uint128_t& row) {
    stmatrix_x4(&row, {r0, r1, r2, r3});
  }
};

inline bool is_elected() { return threadIdx.x % 32 == 0; }

#endif

}  // namespace al::cute_attention

#ifdef AL_EMULATOR
namespace cute {

template <typename Native>
struct MMA_Traits<al::cute_attention::EmulatedWgmma<Native>> : MMA_Traits<Native> {};
template <>
struct Copy_Traits<al::cute_attention::StMatrix> : Copy_Traits<SM90_U32x4_STSM_N> {};

}  // namespace cute
#endif
