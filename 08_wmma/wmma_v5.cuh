#pragma once

#include "08_wmma/fragments.cuh"

namespace al::wmma {

template <typename T, int D, int WARPS, int WARP_ROWS, int BLOCK_N>
struct TileV5 {
  static constexpr int THREADS = 32 * WARPS, BLOCK_M = WARPS * WARP_ROWS;
  static constexpr int BANDS = WARP_ROWS / 16;
  static constexpr int STRIDE = D + 8;
  using KV_tile = T[2 * BLOCK_N * STRIDE];
  static_assert(BLOCK_M <= 4 * BLOCK_N, "Q comes in by way of the KV tiles");
  using Scratch = float[WARPS][2][16][16];
  static constexpr std::size_t shared() { return shared_bytes<KV_tile[2], Scratch>(); }
};

__device__ __forceinline__ void set2(__half* to, float x, float y) {
  reinterpret_cast<__half2&>(*to) = __floats2half2_rn(x, y);
}
__device__ __forceinline__ void set2(__nv_bfloat16* to, float x, float y) {
  reinterpret_cast<__nv_bfloat162&>(*to) = __floats2bfloat162_rn(x, y);
}

template <typename T, int D, int WARPS, int WARP_ROWS, int BLOCK_N, int BLOCKS_PER_SM>
__global__ void __launch_bounds__(32 * WARPS, BLOCKS_PER_SM)
    attention_v5(const T* Q, const T* K, const T* V, T* O, float* LSE, KernelShape shape) {
  using Tile = TileV5<T, D, WARPS, WARP_ROWS, BLOCK_N>;
  constexpr int BANDS = Tile::BANDS, STRIDE = Tile::STRIDE;
  const auto [bh, row0] = query_tile(shape, Tile::BLOCK_M);
  const int t = threadIdx.x, warp = t / 32, lane = t % 32;
  const int warp_row0 = row0 + warp * WARP_ROWS;
  const int warp_rows = min(WARP_ROWS, shape.Nq - warp_row0);  // may be negative

  const T* Q_warp = Q + (size_t(bh) * shape.Nq + warp_row0) * D;
  const T* K_next = K + size_t(shape.kv_head(bh)) * shape.Nkv * D;
  const T* V_next = V + size_t(shape.kv_head(bh)) * shape.Nkv * D;

  SharedArena shared;
  auto& KV_smem = shared.take<typename Tile::KV_tile[2]>("KV_smem");
  auto& scratch = shared.take<typename Tile::Scratch>("scratch")[warp];

  const int keys = shape.visible_keys(min(row0 + Tile::BLOCK_M, shape.Nq) - 1);
  const int warp_keys = warp_rows > 0 ? shape.visible_keys(warp_row0 + warp_rows - 1) : 0;
  const int step = shape.causal ? 1 : 0;

  const auto start_copy = [&](int k0, int b) {
    copy_rows<BLOCK_N, D, Tile::THREADS>(KV_smem[b], STRIDE, K_next, shape.Nkv - k0, t,
                                         CopyLater{});
    copy_rows<BLOCK_N, D, Tile::THREADS>(KV_smem[b] + BLOCK_N * STRIDE, STRIDE, V_next,
                                         shape.Nkv - k0, t, CopyLater{});
    cp_async_commit();
    K_next += BLOCK_N * D;
    V_next += BLOCK_N * D;
  };

  // Q
  T* Q_smem = KV_smem[0] + warp * WARP_ROWS * STRIDE;
  copy_rows<WARP_ROWS, D, 32>(Q_smem, STRIDE, Q_warp, warp_rows, lane, CopyNow{});
  __syncwarp();
  RowsFragment<T> Q_frag[BANDS][D / 16];
#pragma unroll
  for (int band = 0; band < BANDS; ++band) {
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
      load_matrix_sync(Q_frag[band][d], Q_smem + band * 16 * STRIDE + d * 16, STRIDE);
    }
  }
  __syncthreads();
  if (keys > 0) start_copy(0, 0);

  Accumulator O_frag[BANDS][D / 16];
  float m[BANDS][2], l[BANDS][2];
#pragma unroll
  for (int band = 0; band < BANDS; ++band) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      m[band][h] = -INFINITY;
      l[band][h] = 0;
    }
#pragma unroll
    for (int d = 0; d < D / 16; ++d) fill_fragment(O_frag[band][d], 0.0f);
  }
  const float scale = shape.scale * 1.44269504f;
  const int row = lane / 4, col = lane % 4 * 2;

  for (int k0 = 0, b = 0; k0 < keys; k0 += BLOCK_N, b ^= 1) {
    cp_async_wait<0>();
    __syncthreads();
    if (k0 + BLOCK_N < keys) start_copy(k0 + BLOCK_N, b ^ 1);
    if (k0 >= warp_keys) continue;
    const T* K_smem = KV_smem[b];
    const T* V_smem = K_smem + BLOCK_N * STRIDE;
    const int seen = shape.visible_keys(warp_row0) - k0;
    const bool masked = seen < BLOCK_N;

    // S = Q K^T
    Accumulator S[BANDS][BLOCK_N / 16];
#pragma unroll
    for (int n = 0; n < BLOCK_N / 16; ++n) {
#pragma unroll
      for (int band = 0; band < BANDS; ++band) fill_fragment(S[band][n], 0.0f);
#pragma unroll
      for (int d = 0; d < D / 16; ++d) {
        KeysFragment<T> K_frag;
        load_matrix_sync(K_frag, K_smem + n * 16 * STRIDE + d * 16, STRIDE);
#pragma unroll
        for (int band = 0; band < BANDS; ++band) {
          mma_sync(S[band][n], Q_frag[band][d], K_frag, S[band][n]);
        }
      }
    }

    RowsFragment<T> P[BANDS][BLOCK_N / 16];
#pragma unroll
    for (int band = 0; band < BANDS; ++band) {
      if (masked) {
#pragma unroll
        for (int n = 0; n < BLOCK_N / 16; ++n) {
#pragma unroll
          for (int e = 0; e < 8; ++e) {
            const int r = band * 16 + row + e / 2 % 2 * 8, c = n * 16 + col + e % 2 + e / 4 * 8;
            if (c >= seen + step * r) S[band][n].x[e] = -INFINITY;
          }
        }
      }
      float m_ref[2], factor[2];
      bool moved = false;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        float m_new = m[band][h];
#pragma unroll
        for (int n = 0; n < BLOCK_N / 16; ++n) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            m_new = fmaxf(m_new, S[band][n].x[h * 2 + e % 2 + e / 2 * 4]);
          }
        }
        m_new = fmaxf(m_new, __shfl_xor_sync(kWholeWarp, m_new, 1));
        m_new = fmaxf(m_new, __shfl_xor_sync(kWholeWarp, m_new, 2));
        m_ref[h] = m_new == -INFINITY ? 0 : m_new * scale;
        factor[h] = fast_exp2(m[band][h] * scale - m_ref[h]);
        moved |= m_new != m[band][h];
        m[band][h] = m_new;
        l[band][h] *= factor[h];
      }
#pragma unroll
      for (int n = 0; n < BLOCK_N / 16; ++n) {
        float p[8];
#pragma unroll
        for (int e = 0; e < 8; ++e) {
          p[e] = fast_exp2(S[band][n].x[e] * scale - m_ref[e / 2 % 2]);
          l[band][e / 2 % 2] += p[e];
        }
#pragma unroll
        for (int e = 0; e < P[band][n].num_elements; e += 2) {
          set2(&P[band][n].x[e], p[e % 8], p[e % 8 + 1]);
        }
      }
      if (__any_sync(kWholeWarp, moved)) {
#pragma unroll
        for (int d = 0; d < D / 16; ++d) {
#pragma unroll
          for (int e = 0; e < 8; ++e) O_frag[band][d].x[e] *= factor[e / 2 % 2];
        }
      }
    }

    const auto multiply = [&]<bool MASKED>() {
#pragma unroll
      for (int n = 0; n < BLOCK_N / 16; ++n) {
#pragma unroll
        for (int d = 0; d < D / 16; ++d) {
          ValuesFragment<T> V_frag;
          const T* v = V_smem + n * 16 * STRIDE + d * 16;
          load_matrix_sync(V_frag, v, STRIDE);
          if (MASKED && !all_finite(V_frag)) {
#pragma unroll
            for (int band = 0; band < BANDS; ++band) {
              Accumulator p;
#pragma unroll
              for (int e = 0; e < 8; ++e) p.x[e] = to_float(P[band][n].x[e]);
              store_matrix_sync(&scratch[0][0][0], p, 16, mem_row_major);
              __syncwarp();
              multiply_by_hand(O_frag[band][d], &scratch[0][0][0], 16, v, STRIDE,
                               seen + step * band * 16 - n * 16, step, scratch[1]);
            }
          } else {
#pragma unroll
            for (int band = 0; band < BANDS; ++band) {
              mma_sync(O_frag[band][d], P[band][n], V_frag, O_frag[band][d]);
            }
          }
        }
      }
    };
    if (masked) {
      multiply.template operator()<true>();
    } else {
      multiply.template operator()<false>();
    }
  }

  // Epilogue
  __syncthreads();
  float* O_smem = reinterpret_cast<float*>(&KV_smem) + warp * 16 * STRIDE;
  T* O_warp = O + (size_t(bh) * shape.Nq + warp_row0) * D;
#pragma unroll
  for (int band = 0; band < BANDS; ++band) {
    float norm[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sum = l[band][h];
      sum += __shfl_xor_sync(kWholeWarp, sum, 1);
      sum += __shfl_xor_sync(kWholeWarp, sum, 2);
      norm[h] = sum > 0 ? 1 / sum : 0;
      const int r = band * 16 + row + h * 8;
      if (LSE && col == 0 && r < warp_rows) {
        LSE[size_t(bh) * shape.Nq + warp_row0 + r] =
            sum > 0 ? (m[band][h] * scale + log2f(sum)) * 0.693147181f : -INFINITY;
      }
    }
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
#pragma unroll
      for (int e = 0; e < 8; ++e) O_frag[band][d].x[e] *= norm[e / 2 % 2];
      store_matrix_sync(O_smem + d * 16, O_frag[band][d], STRIDE, mem_row_major);
    }
    __syncwarp();
#pragma unroll
    for (int i = lane; i < 16 * D / 4; i += 32) {
      const int r = i / (D / 4), c = i % (D / 4) * 4;
      if (band * 16 + r < warp_rows) {
        store4(O_warp + (band * 16 + r) * D + c, load4(O_smem + r * STRIDE + c));
      }
    }
    __syncwarp();
  }
}

}  // namespace al::wmma
