// nvcuda::wmma: NVIDIA's own header on a GPU, and the emulator's fragments for it.
//
// bf16 has no fragments before sm_80; there they are stand-ins that trap, so that a kernel can be
// compiled for every architecture. Who launches it asks device().sm first.
#pragma once

#include "common/device.cuh"

#ifdef AL_EMULATOR
#include "common/emulator/wmma.hpp"
#else
#include <mma.h>

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
namespace nvcuda::wmma {

template <typename Use, typename Layout>
class fragment<Use, 16, 16, 16, __nv_bfloat16, Layout> {
 public:
  static constexpr int num_elements = 1;
  __nv_bfloat16 x[1];
};
template <typename Use, typename Layout>
__device__ inline void load_matrix_sync(fragment<Use, 16, 16, 16, __nv_bfloat16, Layout>&,
                                        const __nv_bfloat16*, unsigned) {
  __trap();
}
template <typename LayoutA, typename LayoutB>
__device__ inline void mma_sync(fragment<accumulator, 16, 16, 16, float>&,
                                const fragment<matrix_a, 16, 16, 16, __nv_bfloat16, LayoutA>&,
                                const fragment<matrix_b, 16, 16, 16, __nv_bfloat16, LayoutB>&,
                                const fragment<accumulator, 16, 16, 16, float>&) {
  __trap();
}

}  // namespace nvcuda::wmma
#endif
#endif
