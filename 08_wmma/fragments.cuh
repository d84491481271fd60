// What all versions of this chapter share: the names of the fragments, which block does which
// rows, and how a tile gets into shared memory.
//
//   Q [B·Hq, Nq, D]   K, V [B·Hkv, Nkv, D]   O [B·Hq, Nq, D]   LSE [B·Hq, Nq]
#pragma once

#include "common/kernel_shape.cuh"
#include "common/launch.cuh"
#include "common/ptx/cp_async.cuh"
#include "common/ptx/exp2.cuh"
#include "common/ptx/wmma.cuh"
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
// of a fragment is NVIDIA's business. What may be done with one: fill it, load it, store it,
// multiply it, and treat all of its elements alike.
using Accumulator = nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float>;
template <typename T>  // A: 16 rows of Q or P
using RowsFragment =
    nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, T, nvcuda::wmma::row_major>;
template <typename T>  // B: K transposed. 16 keys lie in memory as the columns of B
using KeysFragment =
    nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, T, nvcuda::wmma::col_major>;
template <typename T>  // B: 16 keys of V, the rows of B
using ValuesFragment =
    nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, T, nvcuda::wmma::row_major>;
// [/snippet]

constexpr unsigned kWholeWarp = 0xffffffff;

// The rows of O that a block computes. Blocks start in the order of their index, so the last rows
// of a head, which see the most keys when causal, come first.
struct QueryTile {
  int bh;    // query head, counted over the batch
  int row0;  // first query
};

__device__ inline QueryTile query_tile(const KernelShape& shape, int block_m) {
  const int tiles = ceil_div(shape.Nq, block_m), tile = blockIdx.x;
  return {.bh = tile / tiles, .row0 = (tiles - 1 - tile % tiles) * block_m};
}

// Copies rows [0, count) of `from` [ROWS, D] into shared memory, 16 bytes at a time; the rows
// beyond become zeros, and are not read. Thread t of THREADS does its part.
template <int ROWS, int D, int THREADS, typename T, typename Copy>
__device__ __forceinline__ void copy_rows(T* to, int stride, const T* from, int count, int t,
                                          Copy copy) {
  constexpr int VECTORS = D / 8;  // a row
#pragma unroll
  for (int i = 0; i < ROWS * VECTORS; i += THREADS) {
    const int r = (i + t) / VECTORS, d = (i + t) % VECTORS * 8;
    if (ROWS * VECTORS % THREADS == 0 || i + t < ROWS * VECTORS) {
      const int bytes = r < count ? 16 : 0;
      copy(to + r * stride + d, from + (bytes ? r * D + d : 0), bytes);
    }
  }
}

// Both ways to copy 16 bytes: at once, or some time before cp_async_wait().
struct CopyNow {
  template <typename T>
  __device__ void operator()(T* to, const T* from, int bytes) const {
    uint4 value = make_uint4(0, 0, 0, 0);
    if (bytes) value = *reinterpret_cast<const uint4*>(from);
    *reinterpret_cast<uint4*>(to) = value;
  }
};
struct CopyLater {
  template <typename T>
  __device__ void operator()(T* to, const T* from, int bytes) const {
    cp_async_16(to, from, bytes);
  }
};

template <typename T>
__device__ __forceinline__ bool is_finite(T x) {
  const float f = to_float(x);
  return f - f == 0;
}

// Is every element of the whole warp's fragment finite?
template <typename Fragment>
__device__ __forceinline__ bool all_finite(const Fragment& fragment) {
  bool finite = true;
#pragma unroll
  for (int e = 0; e < fragment.num_elements; ++e) finite &= is_finite(fragment.x[e]);
  return __all_sync(kWholeWarp, finite);
}

// [snippet by_hand]
// O += P V for 16 rows, 16 keys and 16 columns, where row r sees the first `visible + r · step` of
// the keys only and V holds an infinity or a NaN: the tensor cores would multiply it by the zeros
// in P, and 0 · NaN is NaN. Rare, so slow will do.
template <typename P, typename T>
__device__ __forceinline__ void multiply_by_hand(Accumulator& O, const P* P_smem, int P_stride,
                                                 const T* V_smem, int V_stride, int visible,
                                                 int step, float (&sum_smem)[16][16]) {
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int e = lane; e < 256; e += 32) {
    const int r = e / 16, c = e % 16;
    float sum = 0;
#pragma unroll 1
    for (int k = 0; k < min(16, visible + r * step); ++k) {
      sum += to_float(P_smem[r * P_stride + k]) * to_float(V_smem[k * V_stride + c]);
    }
    sum_smem[r][c] = sum;
  }
  __syncwarp();  // the sums are complete
  Accumulator sums;
  load_matrix_sync(sums, &sum_smem[0][0], 16, mem_row_major);
  __syncwarp();  // and read, before the next ones are written
#pragma unroll
  for (int e = 0; e < O.num_elements; ++e) O.x[e] += sums.x[e];
}
// [/snippet]

}  // namespace al::wmma
