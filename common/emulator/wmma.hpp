// <mma.h> for the emulator: fragments of 16 x 16 x 16 in fp16 and bf16 with fp32 accumulators.
//
// CUDA does not say which lane holds which element of a fragment. Here they are dealt out in an
// order that no GPU has, another one for each kind of fragment, so that a kernel that counts on
// some order computes nonsense. settings().gpu_fragments deals them out as sm_80 to sm_90 do.
#pragma once

#include <limits>

#include "common/emulator/tensor_core.hpp"

namespace al::emulator {

enum class FragmentUse { a, b, accumulator };

// A lane's part of a fragment, and the 16 x 16 matrix in memory that it is loaded from or stored
// to: 16 runs of 16 elements, each `ldm` elements after the one before.
struct FragmentPart {
  FragmentUse use;
  void* x;  // the lane's elements
  int count;
  int bytes;     // of an element
  void* memory;  // of element (0, 0)
  unsigned ldm;
  bool columns;  // a run in memory is a column
};
void load_fragment(const FragmentPart& part, Where where);
void store_fragment(const FragmentPart& part, Where where);

template <typename T>  // of a and b: __half or __nv_bfloat16
struct FragmentProduct {
  float* d;
  const T* a;
  const T* b;
  const float* c;
};
template <typename T>
void multiply_fragments(const FragmentProduct<T>& product, Where where);

}  // namespace al::emulator

namespace nvcuda::wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };

// Elements start as NaN: on a GPU, as whatever was in the registers.
template <typename T, int ELEMENTS>
struct FragmentElements {
  static constexpr int num_elements = ELEMENTS;
  T x[ELEMENTS];
  FragmentElements() {
    for (T& element : x) element = T(std::numeric_limits<float>::quiet_NaN());
  }
};

template <typename Use, int M, int N, int K, typename T, typename Layout = void>
class fragment;
template <typename Layout>  // each element of A and B in fp16 is there twice, as it is in <mma.h>
class fragment<matrix_a, 16, 16, 16, __half, Layout> : public FragmentElements<__half, 16> {};
template <typename Layout>
class fragment<matrix_b, 16, 16, 16, __half, Layout> : public FragmentElements<__half, 16> {};
template <typename Layout>
class fragment<matrix_a, 16, 16, 16, __nv_bfloat16, Layout>
    : public FragmentElements<__nv_bfloat16, 8> {};
template <typename Layout>
class fragment<matrix_b, 16, 16, 16, __nv_bfloat16, Layout>
    : public FragmentElements<__nv_bfloat16, 8> {};
template <>
class fragment<accumulator, 16, 16, 16, float> : public FragmentElements<float, 8> {};

template <typename Use, typename T, typename Layout>
void fill_fragment(fragment<Use, 16, 16, 16, T, Layout>& f, T value) {
  for (T& element : f.x) element = value;
}

template <typename Use, typename T, typename Layout>
void load_matrix_sync(fragment<Use, 16, 16, 16, T, Layout>& f, const T* from, unsigned ldm,
                      al::emulator::Where where = al::emulator::Where::current()) {
  using al::emulator::FragmentUse;
  al::emulator::load_fragment(
      {std::is_same_v<Use, matrix_a> ? FragmentUse::a : FragmentUse::b, f.x, f.num_elements,
       sizeof(T), const_cast<T*>(from), ldm, std::is_same_v<Layout, col_major>},
      where);
}
inline void load_matrix_sync(fragment<accumulator, 16, 16, 16, float>& f, const float* from,
                             unsigned ldm, layout_t layout,
                             al::emulator::Where where = al::emulator::Where::current()) {
  al::emulator::load_fragment(
      {al::emulator::FragmentUse::accumulator, f.x, f.num_elements, sizeof(float),
       const_cast<float*>(from), ldm, layout == mem_col_major},
      where);
}
inline void store_matrix_sync(float* to, const fragment<accumulator, 16, 16, 16, float>& f,
                              unsigned ldm, layout_t layout,
                              al::emulator::Where where = al::emulator::Where::current()) {
  al::emulator::store_fragment({al::emulator::FragmentUse::accumulator, const_cast<float*>(f.x),
                                f.num_elements, sizeof(float), to, ldm, layout == mem_col_major},
                               where);
}

template <typename T, typename LayoutA, typename LayoutB>
void mma_sync(fragment<accumulator, 16, 16, 16, float>& d,
              const fragment<matrix_a, 16, 16, 16, T, LayoutA>& a,
              const fragment<matrix_b, 16, 16, 16, T, LayoutB>& b,
              const fragment<accumulator, 16, 16, 16, float>& c,
              al::emulator::Where where = al::emulator::Where::current()) {
  al::emulator::multiply_fragments<T>({d.x, a.x, b.x, c.x}, where);
}

}  // namespace nvcuda::wmma
