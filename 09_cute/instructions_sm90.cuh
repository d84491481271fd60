// The instructions the sm_90a kernel is made of, by the names CuTe's atoms take: see
// instructions.cuh.
#pragma once

// CuTe knows WGMMA's unusual widths (N = 80, 176, …) only where it is told to.
#define CUTE_SM90_EXTENDED_MMA_SHAPES_ENABLED

#include "09_cute/instructions.cuh"

namespace al::cute_attention {

// Elsewhere the kernel's body is left out: whoever launches it asks device().sm first.
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
constexpr bool kHasWgmma = true;
#else
constexpr bool kHasWgmma = false;
#endif

// D [64, N] (+)= A [64, 16] · B [N, 16]ᵀ by the 128 threads of a warpgroup, asynchronously. A and B
// lie in shared memory, both with their K side by side ...
template <typename T, int N>
using WgmmaSS =
    decltype(cute::GMMA::ss_op_selector<T, T, float,
                                        cute::Shape<cute::_64, cute::Int<N>, cute::_16>>());
// ... or A in registers, and B in shared memory with its N side by side.
template <typename T, int N>
using WgmmaRS = decltype(cute::GMMA::rs_op_selector<T, T, float,
                                                    cute::Shape<cute::_64, cute::Int<N>, cute::_16>,
                                                    cute::GMMA::Major::K, cute::GMMA::Major::MN>());
// Four 8 x 8 matrices from the registers of a warp, as WGMMA leaves them, to shared memory.
using StMatrix = cute::SM90_U32x4_STSM_N;

}  // namespace al::cute_attention
