// Fourth version: S and P never leave the registers.
//
//   asked_layout  the kernel believes in an order of the elements, and asks before it is used
//
// CUDA does not say which lane holds which element of a fragment, so a kernel must not guess; but
// it can ask. Load a matrix whose elements are their own indices, and look.
#pragma once

#include "08_wmma/parts.cuh"
#include "common/buffer.hpp"

namespace al::wmma {

// [snippet layout]
// What this version believes of accumulators and of A fragments alike: element e of a lane is in
//
//   columns  0 1   2 3   4 5   6 7   8 9  …
//   row 0    lane 0 lane 1 lane 2 lane 3 lane 0 …      elements 0 1 and, 8 columns on, 4 5
//   row 1    lane 4 …
//    ⋮
//   row 8    lane 0 …                                   elements 2 3 and 6 7
//
// (an fp16 A has each element twice, as e and as e + 8). So four neighbouring lanes share a row,
// and a lane's elements of P are, in their order, those of the A fragment that P V wants from it.
__host__ __device__ constexpr int row_of(int lane, int e) { return lane / 4 + e / 2 % 2 * 8; }
__host__ __device__ constexpr int column_of(int lane, int e) {
  return lane % 4 * 2 + e % 2 + e / 4 % 2 * 8;
}

// One warp asks; *wrong = 0 if that is how it is.
template <typename T>
__global__ void ask_layout(int* wrong) {
  SharedArena shared;
  auto& C_smem = shared.take<float[16][16]>("C_smem");
  auto& A_smem = shared.take<T[16][16]>("A_smem");
  for (int i = threadIdx.x; i < 256; i += 32) {
    C_smem[i / 16][i % 16] = i;
    A_smem[i / 16][i % 16] = from_float<T>(i);  // exact, in bf16 too
  }
  __syncwarp();  // the indices are there
  Accumulator C_frag;
  RowsFragment<T> A_frag;
  load_matrix_sync(C_frag, &C_smem[0][0], 16, mem_row_major);
  load_matrix_sync(A_frag, &A_smem[0][0], 16);
  bool right = C_frag.num_elements == 8;
  const auto index = [&](int e) { return 16 * row_of(threadIdx.x, e) + column_of(threadIdx.x, e); };
  for (int e = 0; e < C_frag.num_elements; ++e) right &= C_frag.x[e] == index(e);
  for (int e = 0; e < A_frag.num_elements; ++e) right &= to_float(A_frag.x[e]) == index(e);
  right = __all_sync(kWholeWarp, right);
  if (threadIdx.x == 0) *wrong = !right;
}
// [/snippet]

template <typename T>
bool ask_layout_now() {
  DeviceBuffer wrong(sizeof(int), "wrong");
  launch(ask_layout<T>,
         {.name = "ask_layout",
          .grid = dim3(1),
          .block = dim3(32),
          .shared_bytes = shared_bytes<float[16][16], T[16][16]>()},
         static_cast<int*>(wrong.data()));
  int answer = 1;
  wrong.read(&answer, sizeof answer);
  return answer == 0;
}

// Does this device lay fragments out as attention_v4 believes? Asked once.
template <typename T>
bool layout_is_as_believed() {
#ifdef AL_EMULATOR
  return ask_layout_now<T>();  // its order can be changed at any time
#else
  static const bool answer = ask_layout_now<T>();
  return answer;
#endif
}

__device__ __forceinline__ void set_pair(__half& first, float x, float y) {
  reinterpret_cast<__half2&>(first) = __floats2half2_rn(x, y);
}
__device__ __forceinline__ void set_pair(__nv_bfloat16& first, float x, float y) {
  reinterpret_cast<__nv_bfloat162&>(first) = __floats2bfloat162_rn(x, y);
}

// Over the four lanes that share a row.
__device__ __forceinline__ float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kWholeWarp, x, 1));
  return fmaxf(x, __shfl_xor_sync(kWholeWarp, x, 2));
}
__device__ __forceinline__ float row_sum(float x) {
  x += __shfl_xor_sync(kWholeWarp, x, 1);
  return x + __shfl_xor_sync(kWholeWarp, x, 2);
}

// [snippet tile]
template <typename T, int D, int WARPS, int WARP_ROWS, int BLOCK_N>
struct TileV4 {
  static constexpr int PAD = 8;
  static constexpr int THREADS = 32 * WARPS, BLOCK_M = WARP_ROWS * WARPS;
  static constexpr int BANDS = WARP_ROWS / 16;  // of a warp
  union KV_tiles {
    T KV[2][2][BLOCK_N][D + PAD];  // two places for K and V
    float O[WARPS][16][D + PAD];   // O on its way out, when they are done with
  };
  using Q_tile = T[WARPS][BANDS][16][D + PAD];
  using By_hand = float[WARPS][2][16][16];
  static constexpr std::size_t shared() { return shared_bytes<KV_tiles, Q_tile, By_hand>(); }
};
// [/snippet]

template <typename T, int D, int WARPS, int WARP_ROWS, int BLOCK_N, int BLOCKS_PER_SM>
__global__ void __launch_bounds__(32 * WARPS, BLOCKS_PER_SM)
    attention_v4(const T* Q, const T* K, const T* V, T* O, float* LSE, KernelShape shape) {
  using Tile = TileV4<T, D, WARPS, WARP_ROWS, BLOCK_N>;
  using Rows = const T(*)[D];
  constexpr int BANDS = Tile::BANDS, STRIDE = D + Tile::PAD;
  const auto [bh, row0] = query_tile<kHeadsTogether>(shape, Tile::BLOCK_M);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int warp_row0 = row0 + WARP_ROWS * warp;
  const int warp_rows = min(WARP_ROWS, shape.Nq - warp_row0);  // none, or negative, beyond the end

  const std::size_t first_row = std::size_t(bh) * shape.Nq + warp_row0;
  const Rows Q_warp = reinterpret_cast<Rows>(Q + first_row * D);  // [WARP_ROWS, D]
  const std::size_t kv_head = std::size_t(shape.kv_head(bh)) * shape.Nkv * D;

  SharedArena shared;
  auto& tiles = shared.take<typename Tile::KV_tiles>("KV_tiles");
  auto& Q_smem = shared.take<typename Tile::Q_tile>("Q_smem")[warp];
  auto& by_hand = shared.take<typename Tile::By_hand>("by_hand")[warp];

  // The last row of the block sees the most keys, and each row `one_more` than the row before.
  const int keys = shape.visible_keys(min(row0 + Tile::BLOCK_M, shape.Nq) - 1);
  const int warp_keys = warp_rows > 0 ? shape.visible_keys(warp_row0 + warp_rows - 1) : 0;
  const int one_more = shape.causal ? 1 : 0;

  // Starts to copy the tile from key k0 on, for buffer b.
  const auto start_copy = [&](int k0, int b) {
    constexpr int THREADS = Tile::THREADS;
    const std::size_t first = kv_head + std::size_t(k0) * D;
    auto& [K_smem, V_smem] = tiles.KV[b];
    copy_rows<BLOCK_N, THREADS>(StartCopy{}, K_smem, reinterpret_cast<Rows>(K + first),
                                shape.Nkv - k0, threadIdx.x);
    copy_rows<BLOCK_N, THREADS>(StartCopy{}, V_smem, reinterpret_cast<Rows>(V + first),
                                shape.Nkv - k0, threadIdx.x);
    cp_async_commit();
  };
  if (keys > 0) start_copy(0, 0);

  Accumulator O_frag[BANDS][D / 16];
  float m[BANDS][2], l[BANDS][2];  // of rows lane / 4 and lane / 4 + 8; l: this lane's part
#pragma unroll
  for (int band = 0; band < BANDS; ++band) {
    copy_rows<16, 32>(CopyNow{shape.scale}, Q_smem[band], Q_warp + 16 * band, warp_rows - 16 * band,
                      lane);
#pragma unroll
    for (int d = 0; d < D / 16; ++d) fill_fragment(O_frag[band][d], 0.0f);
    m[band][0] = m[band][1] = -INFINITY;
    l[band][0] = l[band][1] = 0;
  }
  const float scale = log2_scale(shape.scale);

  for (int k0 = 0, b = 0; k0 < keys; k0 += BLOCK_N, b ^= 1) {
    cp_async_wait<0>();  // this thread's part of tile b has landed
    __syncthreads();     // everyone's has; and everyone is done with the other
    if (k0 + BLOCK_N < keys) start_copy(k0 + BLOCK_N, b ^ 1);
    if (k0 >= warp_keys) continue;                        // none of this warp's rows sees the tile
    const int seen = shape.visible_keys(warp_row0) - k0;  // by the warp's first row, in this tile
    const auto& [K_smem, V_smem] = tiles.KV[b];

    // S = Q Kᵀ  [WARP_ROWS, BLOCK_N]
    Accumulator S_frag[BANDS][BLOCK_N / 16];
#pragma unroll
    for (int band = 0; band < BANDS; ++band) {
#pragma unroll
      for (int n = 0; n < BLOCK_N / 16; ++n) fill_fragment(S_frag[band][n], 0.0f);
    }
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
      RowsFragment<T> Q_frag[BANDS];
#pragma unroll
      for (int band = 0; band < BANDS; ++band) {
        load_fragment(Q_frag[band], &Q_smem[band][0][16 * d], STRIDE);
      }
#pragma unroll
      for (int n = 0; n < BLOCK_N / 16; ++n) {
        KeysFragment<T> K_frag;
        load_fragment(K_frag, &K_smem[16 * n][16 * d], STRIDE);
#pragma unroll
        for (int band = 0; band < BANDS; ++band) {
          mma_sync(S_frag[band][n], Q_frag[band], K_frag, S_frag[band][n]);
        }
      }
    }

    // [snippet softmax]
    // P = softmax of S, unnormalised, as A fragments
    RowsFragment<T> P_frag[BANDS][BLOCK_N / 16];
#pragma unroll
    for (int band = 0; band < BANDS; ++band) {
      if (seen < BLOCK_N) {
#pragma unroll
        for (int n = 0; n < BLOCK_N / 16; ++n) {
#pragma unroll
          for (int e = 0; e < 8; ++e) {
            const int r = 16 * band + row_of(lane, e), key = 16 * n + column_of(lane, e);
            if (key >= seen + one_more * r) S_frag[band][n].x[e] = -INFINITY;
          }
        }
      }
      float factor[2], reference[2];  // for each of the lane's two rows
      bool shrinks = false;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        // Four maxima side by side, or each step would wait for the one before.
        float most[4] = {m[band][h], m[band][h], m[band][h], m[band][h]};
#pragma unroll
        for (int n = 0; n < BLOCK_N / 16; ++n) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            most[e] = fmaxf(most[e], S_frag[band][n].x[e % 2 + e / 2 * 4 + 2 * h]);
          }
        }
        const float m_new = row_max(fmaxf(fmaxf(most[0], most[1]), fmaxf(most[2], most[3])));
        const float finite_m = m_new == -INFINITY ? 0 : m_new;
        factor[h] = fast_exp2(scale * (m[band][h] - finite_m));
        reference[h] = scale * finite_m;
        shrinks |= m[band][h] != m_new;
        m[band][h] = m_new;
      }
      float sums[2][2] = {};  // of row h, in two halves
#pragma unroll
      for (int n = 0; n < BLOCK_N / 16; ++n) {
        auto& p = S_frag[band][n].x;
#pragma unroll
        for (int e = 0; e < 8; ++e) {
          p[e] = fast_exp2(scale * p[e] - reference[e / 2 % 2]);
          sums[e / 2 % 2][e % 2] += p[e];
        }
#pragma unroll
        for (int e = 0; e < P_frag[band][n].num_elements; e += 2) {
          set_pair(P_frag[band][n].x[e], p[e % 8], p[e % 8 + 1]);
        }
      }
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        l[band][h] = l[band][h] * factor[h] + (sums[h][0] + sums[h][1]);
      }
      if (__any_sync(kWholeWarp, shrinks)) {
#pragma unroll
        for (int d = 0; d < D / 16; ++d) {
#pragma unroll
          for (int e = 0; e < 8; ++e) O_frag[band][d].x[e] *= factor[e / 2 % 2];
        }
      }
    }
    // [/snippet]

    // O += P V  [WARP_ROWS, D]
    if (seen >= BLOCK_N || all_finite<D>(V_smem)) {
#pragma unroll
      for (int n = 0; n < BLOCK_N / 16; ++n) {
#pragma unroll
        for (int d = 0; d < D / 16; ++d) {
          ValuesFragment<T> V_frag;
          load_fragment(V_frag, &V_smem[16 * n][16 * d], STRIDE);
#pragma unroll
          for (int band = 0; band < BANDS; ++band) {
            mma_sync(O_frag[band][d], P_frag[band][n], V_frag, O_frag[band][d]);
          }
        }
      }
    } else {
#pragma unroll
      for (int n = 0; n < BLOCK_N / 16; ++n) {
#pragma unroll
        for (int band = 0; band < BANDS; ++band) {
          Accumulator P;
#pragma unroll
          for (int e = 0; e < 8; ++e) P.x[e] = to_float(P_frag[band][n].x[e]);
          store_matrix_sync(&by_hand[0][0][0], P, 16, mem_row_major);
          __syncwarp();  // P is complete
#pragma unroll
          for (int d = 0; d < D / 16; ++d) {
            multiply_by_hand<16>(O_frag[band][d], &by_hand[0][0][0], 16, &V_smem[16 * n][16 * d],
                                 STRIDE, seen + one_more * 16 * band - 16 * n, one_more,
                                 by_hand[1]);
          }
        }
      }
    }
  }

  __syncthreads();  // everyone is done with K and V, whose place O takes
  auto& O_smem = tiles.O[warp];
#pragma unroll
  for (int band = 0; band < BANDS; ++band) {
    float norm[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float sum = row_sum(l[band][h]);
      norm[h] = sum > 0 ? 1 / sum : 0;
      const int r = 16 * band + lane / 4 + 8 * h;
      if (LSE && lane % 4 == 0 && r < warp_rows) {
        LSE[first_row + r] = sum > 0 ? (scale * m[band][h] + log2f(sum)) * 0.693147181f : -INFINITY;
      }
    }
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
#pragma unroll
      for (int e = 0; e < 8; ++e) O_frag[band][d].x[e] *= norm[e / 2 % 2];
      store_matrix_sync(&O_smem[0][16 * d], O_frag[band][d], STRIDE, mem_row_major);
    }
    __syncwarp();  // 16 rows of O are complete
    for (int i = 4 * lane; i < 16 * D; i += 4 * 32) {
      const int r = 16 * band + i / D;
      if (r >= warp_rows) break;
      store4(O + (first_row + r) * D + i % D, load4(&O_smem[i / D][i % D]));
    }
    __syncwarp();  // and read, before the next ones take their place
  }
}

template <typename T, int D, int WARPS, int WARP_ROWS, int BLOCK_N, int BLOCKS_PER_SM>
void launch_v4(const Problem& p, const Arguments& a, Stream stream) {
  launch_attention<TileV4<T, D, WARPS, WARP_ROWS, BLOCK_N>, T>(
      "attention_v4", attention_v4<T, D, WARPS, WARP_ROWS, BLOCK_N, BLOCKS_PER_SM>, p, a, stream);
}

}  // namespace al::wmma
