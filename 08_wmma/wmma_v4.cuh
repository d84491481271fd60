#pragma once

#include "08_wmma/fragments.cuh"

namespace al::wmma {

template <typename T, int D, int WARPS, int WARP_ROWS, int BLOCK_N>
struct TileV4 {
  static constexpr int THREADS = 32 * WARPS, BLOCK_M = WARPS * WARP_ROWS;
  static constexpr int BANDS = WARP_ROWS / 16;
  // Rows are 16 bytes (K, V, P) or 32 bytes (S) longer than they need be ...
  static constexpr int KV_STRIDE = D + 8, P_STRIDE = BLOCK_N + 8, S_STRIDE = BLOCK_N + 8;
  using KV_tile = T[BLOCK_N * KV_STRIDE];
  using S_band = float[16 * S_STRIDE];
  static constexpr int SCRATCH =  // floats
      BANDS * 16 * (S_STRIDE > KV_STRIDE / 2 ? S_STRIDE : KV_STRIDE / 2);
  using Scratch = float[WARPS][SCRATCH];
  using Factors = float[WARPS][WARP_ROWS];
  static constexpr std::size_t shared() {
    return shared_bytes<KV_tile[2], KV_tile[2], Scratch, Factors>();
  }
};

template <typename T, int D, int WARPS, int WARP_ROWS, int BLOCK_N, int BLOCKS_PER_SM>
__global__ void __launch_bounds__(32 * WARPS, BLOCKS_PER_SM)
    attention_v4(const T* Q, const T* K, const T* V, T* O, float* LSE, KernelShape shape) {
  using Tile = TileV4<T, D, WARPS, WARP_ROWS, BLOCK_N>;
  constexpr int BANDS = Tile::BANDS, KV_STRIDE = Tile::KV_STRIDE;
  constexpr int S_STRIDE = Tile::S_STRIDE, P_STRIDE = Tile::P_STRIDE;
  const auto [bh, row0] = query_tile(shape, Tile::BLOCK_M);
  const int t = threadIdx.x, warp = t / 32, lane = t % 32;
  const int warp_row0 = row0 + warp * WARP_ROWS;
  const int warp_rows = min(WARP_ROWS, shape.Nq - warp_row0);  // may be negative

  const T* Q_warp = Q + (size_t(bh) * shape.Nq + warp_row0) * D;
  const T* K_next = K + size_t(shape.kv_head(bh)) * shape.Nkv * D;
  const T* V_next = V + size_t(shape.kv_head(bh)) * shape.Nkv * D;

  SharedArena shared;
  auto& K_smem = shared.take<typename Tile::KV_tile[2]>("K_smem");
  auto& V_smem = shared.take<typename Tile::KV_tile[2]>("V_smem");
  float* scratch = shared.take<typename Tile::Scratch>("scratch")[warp];
  float* factors = shared.take<typename Tile::Factors>("factors")[warp];

  const int keys = shape.visible_keys(min(row0 + Tile::BLOCK_M, shape.Nq) - 1);
  const int warp_keys = warp_rows > 0 ? shape.visible_keys(warp_row0 + warp_rows - 1) : 0;
  const int step = shape.causal ? 1 : 0;

  const auto start_copy = [&](int k0, int b) {
    copy_rows<BLOCK_N, D, Tile::THREADS>(K_smem[b], KV_STRIDE, K_next, shape.Nkv - k0, t,
                                         CopyLater{});
    copy_rows<BLOCK_N, D, Tile::THREADS>(V_smem[b], KV_STRIDE, V_next, shape.Nkv - k0, t,
                                         CopyLater{});
    cp_async_commit();
    K_next += BLOCK_N * D;
    V_next += BLOCK_N * D;
  };
  if (keys > 0) start_copy(0, 0);

  // Q
  T* Q_smem = reinterpret_cast<T*>(scratch);
  copy_rows<WARP_ROWS, D, 32>(Q_smem, KV_STRIDE, Q_warp, warp_rows, lane, CopyNow{});
  __syncwarp();
  RowsFragment<T> Q_frag[BANDS][D / 16];
#pragma unroll
  for (int band = 0; band < BANDS; ++band) {
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
      load_matrix_sync(Q_frag[band][d], Q_smem + band * 16 * KV_STRIDE + d * 16, KV_STRIDE);
    }
  }
  __syncwarp();

  Accumulator O_frag[BANDS][D / 16];
  float m[BANDS], l[BANDS];
#pragma unroll
  for (int band = 0; band < BANDS; ++band) {
    m[band] = -INFINITY;
    l[band] = 0;
#pragma unroll
    for (int d = 0; d < D / 16; ++d) fill_fragment(O_frag[band][d], 0.0f);
  }
  const float scale = shape.scale * 1.44269504f;
  const int row = lane / 2, part = lane % 2 * 4;

  for (int k0 = 0, b = 0; k0 < keys; k0 += BLOCK_N, b ^= 1) {
    cp_async_wait<0>();
    __syncthreads();
    if (k0 + BLOCK_N < keys) start_copy(k0 + BLOCK_N, b ^ 1);
    if (k0 >= warp_keys) continue;
    const int seen = shape.visible_keys(warp_row0) - k0;
    const bool masked = seen < BLOCK_N;

    // S = Q K^T
#pragma unroll
    for (int n = 0; n < BLOCK_N; n += 16) {
      Accumulator S_frag[BANDS];
#pragma unroll
      for (int band = 0; band < BANDS; ++band) fill_fragment(S_frag[band], 0.0f);
#pragma unroll
      for (int d = 0; d < D / 16; ++d) {
        KeysFragment<T> K_frag;
        load_matrix_sync(K_frag, K_smem[b] + n * KV_STRIDE + d * 16, KV_STRIDE);
#pragma unroll
        for (int band = 0; band < BANDS; ++band) {
          mma_sync(S_frag[band], Q_frag[band][d], K_frag, S_frag[band]);
        }
      }
#pragma unroll
      for (int band = 0; band < BANDS; ++band) {
        store_matrix_sync(scratch + band * 16 * S_STRIDE + n, S_frag[band], S_STRIDE,
                          mem_row_major);
      }
    }
    __syncwarp();

    bool moved = false;
#pragma unroll
    for (int band = 0; band < BANDS; ++band) {
      float* S_smem = scratch + band * 16 * S_STRIDE;
      float s[BLOCK_N / 8][4];
#pragma unroll
      for (int c = 0; c < BLOCK_N / 8; ++c) {
        const float4 x = load4(S_smem + row * S_STRIDE + c * 8 + part);
        s[c][0] = x.x;
        s[c][1] = x.y;
        s[c][2] = x.z;
        s[c][3] = x.w;
      }
      if (masked) {
        const int visible = seen + step * (band * 16 + row) - part;
#pragma unroll
        for (int c = 0; c < BLOCK_N / 8; ++c) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            if (c * 8 + e >= visible) s[c][e] = -INFINITY;
          }
        }
      }
      float m_new = m[band];
#pragma unroll
      for (int c = 0; c < BLOCK_N / 8; ++c) {
#pragma unroll
        for (int e = 0; e < 4; ++e) m_new = fmaxf(m_new, s[c][e]);
      }
      m_new = fmaxf(m_new, __shfl_xor_sync(kWholeWarp, m_new, 1));
      const float m_ref = m_new == -INFINITY ? 0 : m_new * scale;
      const float factor = fast_exp2(m[band] * scale - m_ref);
      moved |= m_new != m[band];
      m[band] = m_new;
      float sum = 0;
      T* P_smem = reinterpret_cast<T*>(S_smem);
      __syncwarp();
#pragma unroll
      for (int c = 0; c < BLOCK_N / 8; ++c) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          s[c][e] = fast_exp2(s[c][e] * scale - m_ref);
          sum += s[c][e];
        }
        store4(P_smem + row * P_STRIDE + c * 8 + part,
               make_float4(s[c][0], s[c][1], s[c][2], s[c][3]));
      }
      l[band] = l[band] * factor + sum;
      if (part == 0) factors[band * 16 + row] = factor;
    }
    __syncwarp();

    if (__any_sync(kWholeWarp, moved)) {
#pragma unroll
      for (int band = 0; band < BANDS; ++band) {
        Accumulator factor;
        load_matrix_sync(factor, factors + band * 16, 0, mem_col_major);
#pragma unroll
        for (int d = 0; d < D / 16; ++d) {
#pragma unroll
          for (int e = 0; e < factor.num_elements; ++e) O_frag[band][d].x[e] *= factor.x[e];
        }
      }
    }

    const auto multiply = [&]<bool MASKED>() {
#pragma unroll(MASKED ? 1 : BLOCK_N / 16)
      for (int n = 0; n < BLOCK_N; n += 16) {
        RowsFragment<T> P_frag[BANDS];
#pragma unroll
        for (int band = 0; band < BANDS; ++band) {
          load_matrix_sync(P_frag[band], reinterpret_cast<T*>(scratch + band * 16 * S_STRIDE) + n,
                           P_STRIDE);
        }
#pragma unroll
        for (int d = 0; d < D / 16; ++d) {
          ValuesFragment<T> V_frag;
          const T* v = V_smem[b] + n * KV_STRIDE + d * 16;
          load_matrix_sync(V_frag, v, KV_STRIDE);
          if (MASKED && !all_finite(V_frag)) {
#pragma unroll
            for (int band = 0; band < BANDS; ++band) {
              float* S_smem = scratch + band * 16 * S_STRIDE;
              multiply_by_hand(O_frag[band][d], reinterpret_cast<T*>(S_smem) + n, P_STRIDE, v,
                               KV_STRIDE, seen + step * band * 16 - n, step,
                               reinterpret_cast<float(&)[16][16]>(S_smem[16 * P_STRIDE / 2]));
            }
          } else {
#pragma unroll
            for (int band = 0; band < BANDS; ++band) {
              mma_sync(O_frag[band][d], P_frag[band], V_frag, O_frag[band][d]);
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
    __syncwarp();
  }

  // Epilogue
#pragma unroll
  for (int band = 0; band < BANDS; ++band) {
    l[band] += __shfl_xor_sync(kWholeWarp, l[band], 1);
    const int r = band * 16 + row;
    if (part == 0) {
      factors[r] = l[band] > 0 ? 1 / l[band] : 0;
      if (LSE && r < warp_rows) {
        LSE[size_t(bh) * shape.Nq + warp_row0 + r] =
            l[band] > 0 ? (m[band] * scale + log2f(l[band])) * 0.693147181f : -INFINITY;
      }
    }
  }
  __syncwarp();
  T* O_warp = O + (size_t(bh) * shape.Nq + warp_row0) * D;
#pragma unroll
  for (int band = 0; band < BANDS; ++band) {
    Accumulator factor;
    load_matrix_sync(factor, factors + band * 16, 0, mem_col_major);
    constexpr int COLUMNS = D < BLOCK_N ? D : BLOCK_N;
    float* O_smem = scratch + band * 16 * S_STRIDE;
#pragma unroll
    for (int d0 = 0; d0 < D; d0 += COLUMNS) {
#pragma unroll
      for (int d = d0 / 16; d < (d0 + COLUMNS) / 16; ++d) {
#pragma unroll
        for (int e = 0; e < factor.num_elements; ++e) O_frag[band][d].x[e] *= factor.x[e];
        store_matrix_sync(O_smem + d * 16 - d0, O_frag[band][d], S_STRIDE, mem_row_major);
      }
      __syncwarp();
#pragma unroll
      for (int i = lane; i < 16 * COLUMNS / 4; i += 32) {
        const int r = i / (COLUMNS / 4), c = i % (COLUMNS / 4) * 4;
        if (band * 16 + r < warp_rows) {
          store4(O_warp + (band * 16 + r) * D + d0 + c, load4(O_smem + r * S_STRIDE + c));
        }
      }
      __syncwarp();
    }
  }
}

}  // namespace al::wmma
