// Second version: O stays in the warp's accumulators from the first tile to the last.
//
//   kept_output  16 queries a warp
//   tall_warps   32 queries a warp, so that a fragment of K or V is used twice
#pragma once

#include "08_wmma/parts.cuh"

namespace al::wmma {

// [snippet tile]
template <typename T, int D, int WARPS, int WARP_ROWS, int BLOCK_N>
struct TileV2 {
  static constexpr int PAD = 8;
  static constexpr int THREADS = 32 * WARPS, BLOCK_M = WARP_ROWS * WARPS;
  static constexpr int BANDS = WARP_ROWS / 16;  // of a warp
  using KV_tile = T[BLOCK_N][D + PAD];
  using Bands = Band<T, D, BLOCK_N, PAD>[WARPS][BANDS];
  using Factors = float[WARPS][BANDS][16];
  static constexpr std::size_t shared() { return shared_bytes<KV_tile, KV_tile, Bands, Factors>(); }
};
// [/snippet]

template <typename T, int D, int WARPS, int WARP_ROWS, int BLOCK_N>
__global__ void __launch_bounds__(32 * WARPS)
    attention_v2(const T* Q, const T* K, const T* V, T* O, float* LSE, KernelShape shape) {
  using Tile = TileV2<T, D, WARPS, WARP_ROWS, BLOCK_N>;
  using Rows = const T(*)[D];
  constexpr int BANDS = Tile::BANDS, KV_STRIDE = D + Tile::PAD, S_STRIDE = BLOCK_N + Tile::PAD;
  const auto [bh, row0] = query_tile<1>(shape, Tile::BLOCK_M);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_row0 = row0 + WARP_ROWS * warp;
  const int warp_rows = min(WARP_ROWS, shape.Nq - warp_row0);  // none, or negative, beyond the end

  const std::size_t first_row = std::size_t(bh) * shape.Nq + warp_row0;
  const Rows Q_warp = reinterpret_cast<Rows>(Q + first_row * D);  // [WARP_ROWS, D]
  const std::size_t kv_head = std::size_t(shape.kv_head(bh)) * shape.Nkv * D;
  const Rows K_head = reinterpret_cast<Rows>(K + kv_head);  // [Nkv, D]
  const Rows V_head = reinterpret_cast<Rows>(V + kv_head);  // [Nkv, D]

  SharedArena shared;
  auto& K_smem = shared.take<typename Tile::KV_tile>("K_smem");
  auto& V_smem = shared.take<typename Tile::KV_tile>("V_smem");
  auto& bands = shared.take<typename Tile::Bands>("bands")[warp];
  auto& factors = shared.take<typename Tile::Factors>("factors")[warp];

  // The last row of the block sees the most keys, and each row `one_more` than the row before.
  const int keys = shape.visible_keys(min(row0 + Tile::BLOCK_M, shape.Nq) - 1);
  const int warp_keys = warp_rows > 0 ? shape.visible_keys(warp_row0 + warp_rows - 1) : 0;
  const int one_more = shape.causal ? 1 : 0;

  RowsFragment<T> Q_frag[BANDS][D / 16];
  Accumulator O_frag[BANDS][D / 16];
  Row rows[BANDS];
  const float scale = log2_scale(shape.scale);
#pragma unroll
  for (int band = 0; band < BANDS; ++band) {
    copy_rows<16, 32>(CopyNow{shape.scale}, bands[band].Q, Q_warp + 16 * band,
                      warp_rows - 16 * band, lane);
    __syncwarp();  // Q is there
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
      load_fragment(Q_frag[band][d], &bands[band].Q[0][16 * d], KV_STRIDE);
      fill_fragment(O_frag[band][d], 0.0f);
    }
  }

  // [snippet loop]
  for (int k0 = 0; k0 < keys; k0 += BLOCK_N) {
    __syncthreads();  // everyone is done with the last tile, and with Q, whose place S takes
    copy_rows<BLOCK_N, Tile::THREADS>(CopyNow{}, K_smem, K_head + k0, shape.Nkv - k0, threadIdx.x);
    copy_rows<BLOCK_N, Tile::THREADS>(CopyNow{}, V_smem, V_head + k0, shape.Nkv - k0, threadIdx.x);
    __syncthreads();                // the tiles are complete before anyone reads them
    if (k0 >= warp_keys) continue;  // none of this warp's rows sees the tile
    const int seen = shape.visible_keys(warp_row0) - k0;  // by the warp's first row, in this tile

    // S = Q Kᵀ  [WARP_ROWS, BLOCK_N]
#pragma unroll
    for (int n = 0; n < BLOCK_N; n += 16) {
      Accumulator S_frag[BANDS];
#pragma unroll
      for (int band = 0; band < BANDS; ++band) fill_fragment(S_frag[band], 0.0f);
#pragma unroll
      for (int d = 0; d < D / 16; ++d) {
        KeysFragment<T> K_frag;
        load_fragment(K_frag, &K_smem[n][16 * d], KV_STRIDE);
#pragma unroll
        for (int band = 0; band < BANDS; ++band) {
          mma_sync(S_frag[band], Q_frag[band][d], K_frag, S_frag[band]);
        }
      }
#pragma unroll
      for (int band = 0; band < BANDS; ++band) {
        store_matrix_sync(&bands[band].S[0][n], S_frag[band], S_STRIDE, mem_row_major);
      }
    }
    __syncwarp();  // S is complete

    // P = softmax of S, unnormalised
    bool shrinks = false;
#pragma unroll
    for (int band = 0; band < BANDS; ++band) {
      const int visible = seen + one_more * (16 * band + lane / 2);
      const float factor =
          softmax_step<BLOCK_N>(bands[band].S, bands[band].after.P, visible, scale, rows[band]);
      if (lane % 2 == 0) factors[band][lane / 2] = factor;
      shrinks |= factor != 1;
    }
    __syncwarp();  // P and the factors are complete

    // O = factor · O + P V  [WARP_ROWS, D]. A column of factors that is 0 elements from the next
    // one is an accumulator with a row's factor in each of the row's elements.
    if (__any_sync(kWholeWarp, shrinks)) {
#pragma unroll
      for (int band = 0; band < BANDS; ++band) {
        Accumulator factor;
        load_matrix_sync(factor, factors[band], 0, mem_col_major);
#pragma unroll
        for (int d = 0; d < D / 16; ++d) {
#pragma unroll
          for (int e = 0; e < factor.num_elements; ++e) O_frag[band][d].x[e] *= factor.x[e];
        }
      }
    }
    if (seen >= BLOCK_N || all_finite<D>(V_smem)) {
#pragma unroll
      for (int n = 0; n < BLOCK_N; n += 16) {
        RowsFragment<T> P_frag[BANDS];
#pragma unroll
        for (int band = 0; band < BANDS; ++band) {
          load_fragment(P_frag[band], &bands[band].after.P[0][n], S_STRIDE);
        }
#pragma unroll
        for (int d = 0; d < D / 16; ++d) {
          ValuesFragment<T> V_frag;
          load_fragment(V_frag, &V_smem[n][16 * d], KV_STRIDE);
#pragma unroll
          for (int band = 0; band < BANDS; ++band) {
            mma_sync(O_frag[band][d], P_frag[band], V_frag, O_frag[band][d]);
          }
        }
      }
    } else {
#pragma unroll
      for (int band = 0; band < BANDS; ++band) {
#pragma unroll
        for (int d = 0; d < D / 16; ++d) {
          multiply_by_hand<BLOCK_N>(O_frag[band][d], &bands[band].after.P[0][0], S_STRIDE,
                                    &V_smem[0][16 * d], KV_STRIDE, seen + one_more * 16 * band,
                                    one_more, bands[band].after.by_hand);
        }
      }
    }
  }
  // [/snippet]

  // [snippet output]
  __syncwarp();  // everyone has the last tile's factors, and its P
#pragma unroll
  for (int band = 0; band < BANDS; ++band) {
    const float norm = finish_row(rows[band], scale, LSE ? LSE + first_row : nullptr,
                                  16 * band + lane / 2, warp_rows);
    if (lane % 2 == 0) factors[band][lane / 2] = norm;
  }
  __syncwarp();  // 1 / l of all rows is there
#pragma unroll
  for (int band = 0; band < BANDS; ++band) {
    auto& O_smem = bands[band].S;
    Accumulator factor;
    load_matrix_sync(factor, factors[band], 0, mem_col_major);
#pragma unroll
    for (int d = 0; d < D; d += 16) {
      Accumulator& tile = O_frag[band][d / 16];
#pragma unroll
      for (int e = 0; e < factor.num_elements; ++e) tile.x[e] *= factor.x[e];
      store_matrix_sync(&O_smem[0][0], tile, S_STRIDE, mem_row_major);
      __syncwarp();  // 16 columns of O are complete
      for (int i = lane; i < 256; i += 32) {
        const int r = i / 16, c = i % 16;
        if (16 * band + r >= warp_rows) break;
        O[(first_row + 16 * band + r) * D + d + c] = from_float<T>(O_smem[r][c]);
      }
      __syncwarp();  // and read, before the next ones take their place
    }
  }
  // [/snippet]
}

template <typename T, int D, int WARPS, int WARP_ROWS, int BLOCK_N>
void launch_v2(const Problem& p, const Arguments& a, Stream stream) {
  launch_attention<TileV2<T, D, WARPS, WARP_ROWS, BLOCK_N>, T>(
      "attention_v2", attention_v2<T, D, WARPS, WARP_ROWS, BLOCK_N>, p, a, stream);
}

}  // namespace al::wmma
