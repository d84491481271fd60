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
#endif

#if !defined(AL_EMULATOR) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
namespace nvcuda::wmma {

template <typename Use, typename Layout>
class fragment<Use, 16, 16, 16, __nv_bfloat16, Layout> {
 public:
  static constexpr int num_elements = 2;
  alignas(4) __nv_bfloat16 x[2];
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

namespace al {

// load_matrix_sync from shared memory. The same but for bf16: of a bf16 load nvcc 13.0 does not see
// that it is from shared memory, and makes four loads of 4 bytes a lane of it instead of one
// ldmatrix. PTX lets us say so ("wmma.load"); x holds the registers in their order, as in <mma.h>.
template <typename Fragment, typename T>
__device__ __forceinline__ void load_fragment(Fragment& fragment, const T* from, unsigned ldm) {
  nvcuda::wmma::load_matrix_sync(fragment, from, ldm);
}

#if !defined(AL_EMULATOR) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define AL_LOAD_BF16_FRAGMENT(MATRIX, LAYOUT, PTX)                                      \
  __device__ __forceinline__ void load_fragment(                                        \
      nvcuda::wmma::fragment<nvcuda::wmma::MATRIX, 16, 16, 16, __nv_bfloat16,           \
                             nvcuda::wmma::LAYOUT>& fragment,                           \
      const __nv_bfloat16* from, unsigned ldm) {                                        \
    unsigned* x = reinterpret_cast<unsigned*>(fragment.x);                              \
    asm volatile("wmma.load." PTX ".m16n16k16.shared.bf16 {%0, %1, %2, %3}, [%4], %5;"  \
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])                       \
                 : "r"(static_cast<unsigned>(__cvta_generic_to_shared(from))), "r"(ldm) \
                 : "memory");                                                           \
  }
AL_LOAD_BF16_FRAGMENT(matrix_a, row_major, "a.sync.aligned.row")
AL_LOAD_BF16_FRAGMENT(matrix_b, row_major, "b.sync.aligned.row")
AL_LOAD_BF16_FRAGMENT(matrix_b, col_major, "b.sync.aligned.col")
#undef AL_LOAD_BF16_FRAGMENT
#endif

}  // namespace al
