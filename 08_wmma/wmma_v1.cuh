// Attention on the tensor cores, first version: Q Kᵀ and P V by WMMA, and everything that is not a
// product in shared memory, O too.
//
//   one_warp       16 queries, 16 keys at a time, one warp
//   shared_scores  64 queries, 64 keys at a time: four warps share each tile of K and V
//   padded         the same, with rows that do not lie in the same banks
#pragma once

#include "08_wmma/parts.cuh"

namespace al::wmma {

// [snippet tile]
template <typename T, int D, int WARPS, int BLOCK_N, int PAD>
struct TileV1 {
  static constexpr int THREADS = 32 * WARPS, BLOCK_M = 16 * WARPS;
  using KV_tile = T[BLOCK_N][D + PAD];
  using Bands = Band<T, D, BLOCK_N, PAD>[WARPS];
  using O_tile = float[WARPS][16][D + PAD];
  using Factors = float[WARPS][16];
  static constexpr std::size_t shared() {
    return shared_bytes<KV_tile, KV_tile, Bands, O_tile, Factors>();
  }
};
// [/snippet]

template <typename T, int D, int WARPS, int BLOCK_N, int PAD>
__global__ void __launch_bounds__(32 * WARPS)
    attention_v1(const T* Q, const T* K, const T* V, T* O, float* LSE, KernelShape shape) {
  using Tile = TileV1<T, D, WARPS, BLOCK_N, PAD>;
  using Rows = const T(*)[D];
  constexpr int KV_STRIDE = D + PAD, S_STRIDE = BLOCK_N + PAD, O_STRIDE = D + PAD;
  const auto [bh, row0] = query_tile<1>(shape, Tile::BLOCK_M);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_row0 = row0 + 16 * warp;
  const int warp_rows = min(16, shape.Nq - warp_row0);  // none, or negative, beyond the last query

  const std::size_t first_row = std::size_t(bh) * shape.Nq + warp_row0;
  const Rows Q_warp = reinterpret_cast<Rows>(Q + first_row * D);  // [16, D]
  const std::size_t kv_head = std::size_t(shape.kv_head(bh)) * shape.Nkv * D;
  const Rows K_head = reinterpret_cast<Rows>(K + kv_head);  // [Nkv, D]
  const Rows V_head = reinterpret_cast<Rows>(V + kv_head);  // [Nkv, D]

  SharedArena shared;
  auto& K_smem = shared.take<typename Tile::KV_tile>("K_smem");
  auto& V_smem = shared.take<typename Tile::KV_tile>("V_smem");
  auto& band = shared.take<typename Tile::Bands>("bands")[warp];
  auto& O_smem = shared.take<typename Tile::O_tile>("O_smem")[warp];
  auto& factors = shared.take<typename Tile::Factors>("factors")[warp];

  // The last row of the block sees the most keys, and each row `one_more` than the row before.
  const int keys = shape.visible_keys(min(row0 + Tile::BLOCK_M, shape.Nq) - 1);
  const int one_more = shape.causal ? 1 : 0;

  copy_rows<16, 32>(CopyNow{shape.scale}, band.Q, Q_warp, warp_rows, lane);
  for (int i = lane; i < 16 * D; i += 32) O_smem[i / D][i % D] = 0;
  __syncwarp();  // Q and O are there
  RowsFragment<T> Q_frag[D / 16];
#pragma unroll
  for (int d = 0; d < D / 16; ++d) load_fragment(Q_frag[d], &band.Q[0][16 * d], KV_STRIDE);
  Row row;
  const float scale = log2_scale(shape.scale);

  // [snippet loop]
  for (int k0 = 0; k0 < keys; k0 += BLOCK_N) {
    __syncthreads();  // everyone is done with the last tile, and with Q, whose place S takes
    copy_rows<BLOCK_N, Tile::THREADS>(CopyNow{}, K_smem, K_head + k0, shape.Nkv - k0, threadIdx.x);
    copy_rows<BLOCK_N, Tile::THREADS>(CopyNow{}, V_smem, V_head + k0, shape.Nkv - k0, threadIdx.x);
    __syncthreads();  // the tiles are complete before anyone reads them
    const int seen = shape.visible_keys(warp_row0) - k0;  // by the warp's first row, in this tile

    // S = Q Kᵀ  [16, BLOCK_N]
#pragma unroll
    for (int n = 0; n < BLOCK_N; n += 16) {
      Accumulator S_frag;
      fill_fragment(S_frag, 0.0f);
#pragma unroll
      for (int d = 0; d < D / 16; ++d) {
        KeysFragment<T> K_frag;
        load_fragment(K_frag, &K_smem[n][16 * d], KV_STRIDE);
        mma_sync(S_frag, Q_frag[d], K_frag, S_frag);
      }
      store_matrix_sync(&band.S[0][n], S_frag, S_STRIDE, mem_row_major);
    }
    __syncwarp();  // S is complete

    // P = softmax of S, unnormalised
    const int visible = seen + one_more * (lane / 2);
    const float factor = softmax_step<BLOCK_N>(band.S, band.after.P, visible, scale, row);
    if (lane % 2 == 0) factors[lane / 2] = factor;
    __syncwarp();  // P and the factors are complete

    // O = factor · O + P V  [16, D]
    for (int i = lane; i < 16 * D; i += 32) O_smem[i / D][i % D] *= factors[i / D];
    __syncwarp();  // O has shrunk
    const bool finite = seen >= BLOCK_N || all_finite<D>(V_smem);
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      Accumulator O_frag;
      load_matrix_sync(O_frag, &O_smem[0][d], O_STRIDE, mem_row_major);
      if (finite) {
#pragma unroll
        for (int n = 0; n < BLOCK_N; n += 16) {
          RowsFragment<T> P_frag;
          ValuesFragment<T> V_frag;
          load_fragment(P_frag, &band.after.P[0][n], S_STRIDE);
          load_fragment(V_frag, &V_smem[n][d], KV_STRIDE);
          mma_sync(O_frag, P_frag, V_frag, O_frag);
        }
      } else {
        multiply_by_hand<BLOCK_N>(O_frag, &band.after.P[0][0], S_STRIDE, &V_smem[0][d], KV_STRIDE,
                                  seen, one_more, band.after.by_hand);
      }
      __syncwarp();  // everyone has loaded its part of O before it is written
      store_matrix_sync(&O_smem[0][d], O_frag, O_STRIDE, mem_row_major);
    }
  }
  // [/snippet]

  // [snippet output]
  __syncwarp();  // the last O is complete
  const float norm = finish_row(row, scale, LSE ? LSE + first_row : nullptr, lane / 2, warp_rows);
  if (lane % 2 == 0) factors[lane / 2] = norm;
  __syncwarp();  // 1 / l of all rows is there
  for (int i = lane; i < warp_rows * D; i += 32) {
    O[first_row * D + i] = from_float<T>(O_smem[i / D][i % D] * factors[i / D]);
  }
  // [/snippet]
}

template <typename T, int D, int WARPS, int BLOCK_N, int PAD>
void launch_v1(const Problem& p, const Arguments& a, Stream stream) {
  launch_attention<TileV1<T, D, WARPS, BLOCK_N, PAD>, T>(
      "attention_v1", attention_v1<T, D, WARPS, BLOCK_N, PAD>, p, a, stream);
}

}  // namespace al::wmma
