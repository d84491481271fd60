// What all versions of this chapter share: the fragments, which block does which rows, how rows
// get into shared memory, and a step of the softmax on 16 rows of S that lie there.
#pragma once

#include <cmath>
#include <type_traits>

#include "common/kernel_shape.cuh"
#include "common/launch.cuh"
#include "common/ptx/cp_async.cuh"
#include "common/ptx/exp2.cuh"
#include "common/ptx/wmma.cuh"
#include "common/stage.hpp"
#include "common/vector.cuh"

namespace al::wmma {

using nvcuda::wmma::fill_fragment;
using nvcuda::wmma::load_matrix_sync;
using nvcuda::wmma::mem_col_major;
using nvcuda::wmma::mem_row_major;
using nvcuda::wmma::mma_sync;
using nvcuda::wmma::store_matrix_sync;

// [snippet fragments]
// A warp multiplies A [16, 16] by B [16, 16] and adds to C [16, 16]. Which lane holds which element
// is not said. What may be done with a fragment: fill it, load it, store it, multiply it, and
// treat all of its elements alike.
using Accumulator = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float>;
template <typename T>  // A: 16 rows of Q, or of P
using RowsFragment =
    nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, T, nvcuda::wmma::row_major>;
template <typename T>  // B = Kᵀ: 16 rows of K are its columns
using KeysFragment =
    nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, T, nvcuda::wmma::col_major>;
template <typename T>  // B = V: 16 rows of V are its rows
using ValuesFragment =
    nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, T, nvcuda::wmma::row_major>;
// [/snippet]

constexpr unsigned kWholeWarp = 0xffffffff;

// [snippet order]
// The rows of O that a block computes. Blocks start in the order of their index. Within HEADS heads
// the last rows come first: they see the most keys when causal, and the short blocks fill the end.
struct QueryTile {
  int bh;    // query head, counted over the batch
  int row0;  // first query
};

template <int HEADS>
__device__ __forceinline__ QueryTile query_tile(const KernelShape& shape, int block_m) {
  const int tiles = ceil_div(shape.Nq, block_m);  // of a head
  const int first_head = blockIdx.x / (HEADS * tiles) * HEADS;
  const int heads = min(HEADS, int(gridDim.x) / tiles - first_head);
  const int i = blockIdx.x - first_head * tiles;
  return {.bh = first_head + i % heads, .row0 = (tiles - 1 - i / heads) * block_m};
}
// [/snippet]
constexpr int kHeadsTogether = 16;

// --- bringing rows in ---------------------------------------------------------------------------

// 16 bytes to shared memory, at once or later: zeros if `read` is false, and then `from` is not
// touched. Of Q the signs are turned where the scale is negative: the softmax counts on a larger
// product being a larger score.
struct CopyNow {
  float scale = 1;
  template <typename T>
  __device__ __forceinline__ void operator()(T* to, const T* from, bool read) const {
    uint4 value = make_uint4(0, 0, 0, 0);
    if (read) value = *reinterpret_cast<const uint4*>(from);
    const unsigned signs = scale < 0 ? 0x80008000 : 0;
    *reinterpret_cast<uint4*>(to) =
        make_uint4(value.x ^ signs, value.y ^ signs, value.z ^ signs, value.w ^ signs);
  }
};
struct StartCopy {
  template <typename T>
  __device__ __forceinline__ void operator()(T* to, const T* from, bool read) const {
    cp_async_16(to, from, read ? 16 : 0);
  }
};

// Copies rows 0 … count - 1 of `from` [ROWS, D] to shared memory; the rest of the ROWS becomes
// zeros. Thread t of THREADS does its part.
template <int ROWS, int THREADS, typename Copy, typename T, int STRIDE, int D>
__device__ __forceinline__ void copy_rows(Copy copy, T (*to)[STRIDE], const T (*from)[D], int count,
                                          int t) {
  constexpr int VECTORS = D / 8, ROWS_AT_ONCE = THREADS / VECTORS;
  static_assert(THREADS % VECTORS == 0 && ROWS % ROWS_AT_ONCE == 0);
  const int r0 = t / VECTORS, d = t % VECTORS * 8;
#pragma unroll
  for (int r = 0; r < ROWS; r += ROWS_AT_ONCE) {
    copy(&to[r0 + r][d], &from[r0 + r][d], r0 + r < count);
  }
}

// exp(scale · s) = 2^(log2_scale · s). Not quite zero where the scale is, for 0 · -inf is NaN.
__device__ __forceinline__ float log2_scale(float scale) {
  return fmaxf(fabsf(scale) * 1.44269504f, 1e-30f);
}

// --- softmax ------------------------------------------------------------------------------------

// [snippet band]
// 16 rows of a warp's work in shared memory, one after the other: Q on its way into fragments,
// then, for each tile of keys, S and in its place P, and O on its way out.
template <typename T, int D, int BLOCK_N, int PAD>
union Band {
  static constexpr int Q_STRIDE = D + PAD, S_STRIDE = BLOCK_N + PAD;
  T Q[16][Q_STRIDE];
  float S[16][S_STRIDE];
  struct {
    T P[16][S_STRIDE];
    float by_hand[16][16];
  } after;
};
// [/snippet]

// A row's state: what two lanes know of it. l is this lane's part of the sum.
struct Row {
  float m = -INFINITY, l = 0;
};

// [snippet softmax]
// A step of the online softmax: S [16, BLOCK_N] becomes P in the same place. Lanes 2r and 2r + 1
// share row r, four keys in turn; they see its first `visible` keys. Returns 2^(m_old - m_new), the
// factor by which what was summed up before has to shrink.
template <int BLOCK_N, typename T, int STRIDE>
__device__ __forceinline__ float softmax_step(const float (&S_smem)[16][STRIDE],
                                              T (&P_smem)[16][STRIDE], int visible, float scale,
                                              Row& row) {
  const int lane = threadIdx.x % 32, r = lane / 2, first = lane % 2 * 4;
  float4 s[BLOCK_N / 8];
#pragma unroll
  for (int c = 0; c < BLOCK_N / 8; ++c) s[c] = load4(&S_smem[r][8 * c + first]);
  if (!__all_sync(kWholeWarp, visible >= BLOCK_N)) {
#pragma unroll
    for (int c = 0; c < BLOCK_N / 8; ++c) {
      const int key = 8 * c + first;
      if (key + 0 >= visible) s[c].x = -INFINITY;
      if (key + 1 >= visible) s[c].y = -INFINITY;
      if (key + 2 >= visible) s[c].z = -INFINITY;
      if (key + 3 >= visible) s[c].w = -INFINITY;
    }
  }

  // Four maxima and four sums side by side, or each step would wait for the one before.
  float4 m = make_float4(row.m, row.m, row.m, row.m);
#pragma unroll
  for (int c = 0; c < BLOCK_N / 8; ++c) {
    m.x = fmaxf(m.x, s[c].x);
    m.y = fmaxf(m.y, s[c].y);
    m.z = fmaxf(m.z, s[c].z);
    m.w = fmaxf(m.w, s[c].w);
  }
  float m_new = fmaxf(fmaxf(m.x, m.y), fmaxf(m.z, m.w));
  m_new = fmaxf(m_new, __shfl_xor_sync(kWholeWarp, m_new, 1));
  const float finite_m = m_new == -INFINITY ? 0 : m_new;  // -inf - -inf is NaN
  // Exactly 1 where the maximum stays: scale · m - scale · m would not be, if fused into an FMA.
  const float factor = fast_exp2(scale * (row.m - finite_m));
  const float reference = scale * finite_m;

  __syncwarp();  // S is in registers everywhere before P takes its place
  float4 l = make_float4(0, 0, 0, 0);
#pragma unroll
  for (int c = 0; c < BLOCK_N / 8; ++c) {
    const float4 p =
        make_float4(fast_exp2(scale * s[c].x - reference), fast_exp2(scale * s[c].y - reference),
                    fast_exp2(scale * s[c].z - reference), fast_exp2(scale * s[c].w - reference));
    l = make_float4(l.x + p.x, l.y + p.y, l.z + p.z, l.w + p.w);
    store4(&P_smem[r][8 * c + first], p);
  }
  row = {.m = m_new, .l = row.l * factor + ((l.x + l.y) + (l.z + l.w))};
  return factor;
}
// [/snippet]

// After the last tile: writes LSE, if it is wanted and row r of the lane is one of `count`, and
// returns 1 / l, or 0 for a row that has seen no key.
__device__ __forceinline__ float finish_row(Row row, float scale, float* LSE, int r, int count) {
  const float l = row.l + __shfl_xor_sync(kWholeWarp, row.l, 1);
  if (LSE && threadIdx.x % 2 == 0 && r < count) {
    LSE[r] = l > 0 ? (scale * row.m + log2f(l)) * 0.693147181f : -INFINITY;
  }
  return l > 0 ? 1 / l : 0;
}

// --- what must not be multiplied by zero --------------------------------------------------------

// [snippet finite]
// Is V [BLOCK_N, D] finite throughout? 0 · x is 0 then, and NaN for an infinity or a NaN: a number
// whose exponent has all bits set. Adding the lowest of them makes such an exponent, and no other,
// run over into the place of the sign.
template <int D, int BLOCK_N, typename T, int STRIDE>
__device__ __forceinline__ bool all_finite(const T (&V_smem)[BLOCK_N][STRIDE]) {
  constexpr bool FP16 = std::is_same_v<T, __half>;
  constexpr unsigned EXPONENTS = FP16 ? 0x7c007c00 : 0x7f807f80;  // of two numbers
  constexpr unsigned LOWEST = FP16 ? 0x04000400 : 0x00800080;
  unsigned signs = 0;
#pragma unroll 4
  for (int i = threadIdx.x % 32; i < BLOCK_N * D / 8; i += 32) {
    const uint4 x = *reinterpret_cast<const uint4*>(&V_smem[i / (D / 8)][i % (D / 8) * 8]);
    for (const unsigned two : {x.x, x.y, x.z, x.w}) signs |= (two & EXPONENTS) + LOWEST;
  }
  return __all_sync(kWholeWarp, (signs & 0x80008000) == 0);
}

// O [16, 16] += P V for KEYS keys, row r seeing the first `visible + r · one_more` of them only.
// The tensor cores multiply V by the zeros in P as well, and 0 · NaN is NaN: this does not.
template <int KEYS, typename P, typename T>
__device__ __forceinline__ void multiply_by_hand(Accumulator& O_frag, const P* P_smem, int P_stride,
                                                 const T* V_smem, int V_stride, int visible,
                                                 int one_more, float (&sums)[16][16]) {
#pragma unroll 1
  for (int i = threadIdx.x % 32; i < 256; i += 32) {
    const int r = i / 16, d = i % 16;
    float sum = 0;
#pragma unroll 1
    for (int j = 0; j < min(KEYS, visible + r * one_more); ++j) {
      sum += to_float(P_smem[r * P_stride + j]) * to_float(V_smem[j * V_stride + d]);
    }
    sums[r][d] = sum;
  }
  __syncwarp();  // the sums are complete
  Accumulator more;
  load_matrix_sync(more, &sums[0][0], 16, mem_row_major);
#pragma unroll
  for (int e = 0; e < O_frag.num_elements; ++e) O_frag.x[e] += more.x[e];
  __syncwarp();  // and read, before others take their place
}
// [/snippet]

// Starts a block for each Tile::BLOCK_M queries of each head.
template <typename Tile, typename T>
void launch_attention(const char* name,
                      void (*kernel)(const T*, const T*, const T*, T*, float*, KernelShape),
                      const Problem& p, const Arguments& a, Stream stream) {
  launch(kernel,
         {.name = name,
          .grid = dim3(p.batch * p.heads * ceil_div(p.seq, Tile::BLOCK_M)),
          .block = dim3(Tile::THREADS),
          .shared_bytes = Tile::shared(),
          .stream = stream},
         static_cast<const T*>(a.q), static_cast<const T*>(a.k), static_cast<const T*>(a.v),
         static_cast<T*>(a.out), a.lse, KernelShape(p));
}

}  // namespace al::wmma
