// All of attention in one kernel on the CUDA cores, as in FlashAttention (Dao et al., 2022,
// algorithm 1): S and P live and die on the chip, and O is kept normalised all the while.
//
//   Q [B·Hq, Nq, D]   K, V [B·Hkv, Nkv, D]   O [B·Hq, Nq, D]   LSE [B·Hq, Nq] fp32, or nullptr
//
// A block owns BLOCK_M queries of one head and walks over all keys, BLOCK_N at a time:
//
//   S = scale · Q Kᵀ            as chapter 01's register_tiles, D in chunks of BLOCK_D
//   m, l, P = a step of the     as chapter 02's online, by rows
//             online softmax
//   O = keep · O + P V          as chapter 03's register_tiles, keys in chunks of BLOCK_K
//
// All arithmetic is fp32 whatever the inputs' type. A hidden key's V is never multiplied, not even
// by zero, for 0 · NaN is NaN.
#pragma once

#include <algorithm>

#include "common/dispatch.cuh"
#include "common/kernel_shape.cuh"
#include "common/launch.cuh"
#include "common/stage.hpp"
#include "common/vector.cuh"

namespace al::fused1 {

// [snippet recurrence]
// How a row takes in a tile of keys. Before: O, the average over the keys so far, and l, the sum
// of exp(s - m) over them. The tile raises the maximum, by which the old terms shrink by `alpha`,
// and the sum to l_new.
struct Recurrence {
  // What the old average is worth in the new one …
  static __device__ float keep(float alpha, float l, float l_new) { return alpha * l / l_new; }
  // … and what exp(s - m) of a new key is.
  static __device__ float weight(float l_new) { return 1 / l_new; }
  // After the last tile, O is finished.
  static __device__ float finish(float) { return 1; }
};
// [/snippet]

// clang-format off
//                    tx: 0     1  …  7                   one warp at THREADS_N = 8: 32 threads
//   ty 0  lanes      0     2  …  14                      as 4 x 8;
//   ty 1             1     3  …  15                      lane = ty % 2 + 2·tx + 16·(ty / 2)
//   ty 2            16    18  …  30
//   ty 3            17    19  …  31
// clang-format on
//
// Thread (ty, tx) owns rows ty, ty + THREADS_M, … of S, P and O alike; keys tx, tx + THREADS_N, …
// of S and P; and of O the columns of every THREADS_N-th float4 from 4·tx on. A row belongs to
// THREADS_N lanes of one warp: what they say to each other about it never needs the whole block.
// [snippet tile]
template <int D, int BLOCK_M, int BLOCK_N, int TM, int TN>
struct FusedTile {
  static constexpr int THREADS_M = BLOCK_M / TM, THREADS_N = BLOCK_N / TN;
  static constexpr int THREADS = THREADS_M * THREADS_N;
  static constexpr int TD = D / THREADS_N;  // columns of O a thread owns
  static_assert(THREADS_M % 2 == 0 && THREADS_N <= 16, "lanes are dealt in pairs of rows");
  static_assert(TD % 4 == 0 && TD * THREADS_N == D, "columns of O are owned four at a time");

  // K and V pass through the same place in chunks.
  static constexpr int CHUNK = std::min(4096, 32 * THREADS);  // elements
  static constexpr int BLOCK_D = std::min(D, CHUNK / BLOCK_N);
  static constexpr int BLOCK_K = std::min(BLOCK_N, CHUNK / D);

  // Rows that are read along are padded by 4 words, or they would lie in the same banks.
  using Q_tile = float[BLOCK_M][D + 4];
  using P_tile = float[BLOCK_M][BLOCK_N + 4];
  using K_chunk = float[BLOCK_N][BLOCK_D + 4];
  using V_chunk = float[BLOCK_K][D];
  union KV_chunk {
    K_chunk K;
    V_chunk V;
  };
  static constexpr std::size_t shared() { return shared_bytes<Q_tile, P_tile, KV_chunk>(); }
};
// [/snippet]

// Copies `rows` rows of a matrix whose rows are D apart, columns d0 … d0 + COLUMNS - 1, to shared
// memory, widened to fp32. The rest of the ROWS becomes zero.
template <int D, int THREADS, typename T, int ROWS, int COLUMNS, int WIDTH>
__device__ __forceinline__ void load_tile(float (&smem)[ROWS][WIDTH], const T* matrix, int rows) {
  constexpr int VECTORS = COLUMNS / 4;  // a row
#pragma unroll
  for (int n = threadIdx.x; n < ROWS * VECTORS; n += THREADS) {
    const int r = n / VECTORS, c = n % VECTORS * 4;
    float4 x = make_float4(0, 0, 0, 0);
    if (r < rows) x = load4(matrix + (r * D + c));
    store4(&smem[r][c], x);
  }
}

// S += Q Kᵀ for BLOCK_D of D, from column d0 of Q.
template <typename Tile, int TM, int TN, int WIDTH, int ROWS, int BLOCK_M, int QWIDTH>
__device__ __forceinline__ void multiply_QK(float (&S_rmem)[TM][TN],
                                            const float (&Q_smem)[BLOCK_M][QWIDTH], int d0,
                                            const float (&K_smem)[ROWS][WIDTH], int ty, int tx) {
#pragma unroll 1
  for (int d = 0; d < Tile::BLOCK_D; d += 4) {
    float4 q[TM];  // four d of this thread's rows
#pragma unroll
    for (int m = 0; m < TM; ++m) q[m] = load4(&Q_smem[ty + m * Tile::THREADS_M][d0 + d]);
#pragma unroll
    for (int n = 0; n < TN; ++n) {
      const float4 k = load4(&K_smem[tx + n * Tile::THREADS_N][d]);
#pragma unroll
      for (int m = 0; m < TM; ++m) {
        S_rmem[m][n] += q[m].x * k.x;
        S_rmem[m][n] += q[m].y * k.y;
        S_rmem[m][n] += q[m].z * k.z;
        S_rmem[m][n] += q[m].w * k.w;
      }
    }
  }
}

// O += P V for BLOCK_K keys, from column k0 of P. With MASKED, row m of this thread sees the first
// `visible + m · visible_step` of them only, and the others are not multiplied at all.
template <bool MASKED, typename Tile, int TM, int TD, int BLOCK_M, int PWIDTH, int BLOCK_K, int D>
__device__ __forceinline__ void multiply_PV(float (&O_rmem)[TM][TD],
                                            const float (&P_smem)[BLOCK_M][PWIDTH], int k0,
                                            const float (&V_smem)[BLOCK_K][D], int ty, int tx,
                                            int visible, int visible_step) {
#pragma unroll 1
  for (int k = 0; k < BLOCK_K; k += 4) {
    float4 p[TM];  // four keys of this thread's rows
#pragma unroll
    for (int m = 0; m < TM; ++m) p[m] = load4(&P_smem[ty + m * Tile::THREADS_M][k0 + k]);

    const auto multiply_key = [&](int key, float float4::*of_key) {
#pragma unroll
      for (int n = 0; n < TD; n += 4) {
        const float4 v = load4(&V_smem[key][4 * tx + n * Tile::THREADS_N]);
#pragma unroll
        for (int m = 0; m < TM; ++m) {
          if (MASKED && key >= visible + m * visible_step) continue;
          O_rmem[m][n + 0] += p[m].*of_key * v.x;
          O_rmem[m][n + 1] += p[m].*of_key * v.y;
          O_rmem[m][n + 2] += p[m].*of_key * v.z;
          O_rmem[m][n + 3] += p[m].*of_key * v.w;
        }
      }
    };
    multiply_key(k + 0, &float4::x);
    multiply_key(k + 1, &float4::y);
    multiply_key(k + 2, &float4::z);
    multiply_key(k + 3, &float4::w);
  }
}

// op over the x of the lanes that share a row.
template <int THREADS_N, typename Op>
__device__ __forceinline__ float row_reduce(float x, Op op) {
#pragma unroll
  for (int lanes = 2; lanes < 2 * THREADS_N; lanes *= 2) {
    x = op(x, __shfl_xor_sync(0xffffffff, x, lanes));
  }
  return x;
}

// What to subtract from a row whose maximum is m: with nothing but -inf in it, 0 instead of m, and
// exp(-inf - 0) is 0, where exp(-inf - -inf) would be NaN.
__device__ __forceinline__ float finite(float m) { return m == -INFINITY ? 0.0f : m; }

// [snippet kernel]
template <typename T, int D, int BLOCK_M, int BLOCK_N, int TM, int TN, typename Form = Recurrence>
__global__ void __launch_bounds__(FusedTile<D, BLOCK_M, BLOCK_N, TM, TN>::THREADS)
    fused_attention(const T* Q, const T* K, const T* V, T* O, float* LSE, KernelShape shape) {
  using Tile = FusedTile<D, BLOCK_M, BLOCK_N, TM, TN>;
  constexpr int THREADS_M = Tile::THREADS_M, THREADS_N = Tile::THREADS_N, THREADS = Tile::THREADS;
  constexpr int BLOCK_D = Tile::BLOCK_D, BLOCK_K = Tile::BLOCK_K, TD = Tile::TD;
  const int tiles = ceil_div(shape.Nq, BLOCK_M);
  const int bh = blockIdx.x / tiles, row0 = blockIdx.x % tiles * BLOCK_M;
  const int tx = threadIdx.x / 2 % THREADS_N;
  const int ty = threadIdx.x % 2 + threadIdx.x / (2 * THREADS_N) * 2;

  const T* Q_rows = Q + (size_t(bh) * shape.Nq + row0) * D;         // [rows, D]
  const T* K_head = K + size_t(shape.kv_head(bh)) * shape.Nkv * D;  // [Nkv, D]
  const T* V_head = V + size_t(shape.kv_head(bh)) * shape.Nkv * D;  // [Nkv, D]

  SharedArena shared;
  auto& Q_smem = shared.take<typename Tile::Q_tile>("Q_smem");
  auto& P_smem = shared.take<typename Tile::P_tile>("P_smem");
  auto& KV_smem = shared.take<typename Tile::KV_chunk>("KV_smem");

  load_tile<D, THREADS, T, BLOCK_M, D>(Q_smem, Q_rows, shape.Nq - row0);

  float O_rmem[TM][TD] = {};
  float m_rmem[TM], l_rmem[TM] = {};
#pragma unroll
  for (int m = 0; m < TM; ++m) m_rmem[m] = -INFINITY;

  for (int j0 = 0; j0 < shape.Nkv; j0 += BLOCK_N) {
    // S = Q Kᵀ  [BLOCK_M, BLOCK_N]
    float S_rmem[TM][TN] = {};
    for (int d0 = 0; d0 < D; d0 += BLOCK_D) {
      __syncthreads();  // everyone is done reading the chunk before
      load_tile<D, THREADS, T, BLOCK_N, BLOCK_D>(KV_smem.K, K_head + (j0 * D + d0), shape.Nkv - j0);
      __syncthreads();  // the chunk is complete
      multiply_QK<Tile>(S_rmem, Q_smem, d0, KV_smem.K, ty, tx);
    }

    // Of this tile's keys, row m of this thread sees the first visible + m · visible_step.
    const int visible = shape.visible_keys(row0 + ty) - j0;
    const int visible_step = shape.causal ? THREADS_M : 0;
#pragma unroll
    for (int m = 0; m < TM; ++m) {
      float m_new = m_rmem[m];
#pragma unroll
      for (int n = 0; n < TN; ++n) {
        const bool sees = tx + n * THREADS_N < visible + m * visible_step;
        S_rmem[m][n] = sees ? S_rmem[m][n] * shape.scale : -INFINITY;
        m_new = fmaxf(m_new, S_rmem[m][n]);
      }
      m_new = row_reduce<THREADS_N>(m_new, [](float a, float b) { return fmaxf(a, b); });
      const float reference = finite(m_new);

      float sum = 0;
#pragma unroll
      for (int n = 0; n < TN; ++n) sum += S_rmem[m][n] = expf(S_rmem[m][n] - reference);
      const float alpha = expf(m_rmem[m] - reference);
      sum = row_reduce<THREADS_N>(sum, [](float a, float b) { return a + b; });
      const float l_new = alpha * l_rmem[m] + sum;

      const bool none = l_new == 0;  // no key seen yet
      const float keep = none ? 0.0f : Form::keep(alpha, l_rmem[m], l_new);
      const float weight = none ? 0.0f : Form::weight(l_new);
      m_rmem[m] = m_new;
      l_rmem[m] = l_new;
#pragma unroll
      for (int n = 0; n < TD; ++n) O_rmem[m][n] *= keep;
#pragma unroll
      for (int n = 0; n < TN; ++n) {
        P_smem[ty + m * THREADS_M][tx + n * THREADS_N] = S_rmem[m][n] * weight;
      }
    }

    // O += P V  [BLOCK_M, D]. The tile's first row sees the fewest keys.
    const bool whole = j0 + BLOCK_N <= shape.visible_keys(row0);
    for (int k0 = 0; k0 < BLOCK_N; k0 += BLOCK_K) {
      __syncthreads();  // everyone is done reading the chunk before; P is complete
      load_tile<D, THREADS, T, BLOCK_K, D>(KV_smem.V, V_head + ((j0 + k0) * D),
                                           shape.Nkv - (j0 + k0));
      __syncthreads();  // the chunk is complete
      if (whole) {
        multiply_PV<false, Tile>(O_rmem, P_smem, k0, KV_smem.V, ty, tx, 0, 0);
      } else {
        multiply_PV<true, Tile>(O_rmem, P_smem, k0, KV_smem.V, ty, tx, visible - k0, visible_step);
      }
    }
  }

  T* O_head = O + size_t(bh) * shape.Nq * D;  // [Nq, D]
#pragma unroll
  for (int m = 0; m < TM; ++m) {
    const int i = row0 + ty + m * THREADS_M;
    if (i >= shape.Nq) break;
    const float finish = Form::finish(l_rmem[m]);
#pragma unroll
    for (int n = 0; n < TD; n += 4) {
      store4(O_head + (i * D + 4 * tx + n * THREADS_N),
             make_float4(O_rmem[m][n] * finish, O_rmem[m][n + 1] * finish,
                         O_rmem[m][n + 2] * finish, O_rmem[m][n + 3] * finish));
    }
    if (LSE && tx == 0) LSE[size_t(bh) * shape.Nq + i] = m_rmem[m] + logf(l_rmem[m]);
  }
}
// [/snippet]

// One head's Q, K, V must stay below 2^31 elements, and D must be p.head_dim.
template <int D, int BLOCK_M, int BLOCK_N, int TM, int TN, typename Form = Recurrence>
void launch_fused(const Problem& p, const Arguments& a, Stream stream) {
  using Tile = FusedTile<D, BLOCK_M, BLOCK_N, TM, TN>;
  dispatch(p.dtype, [&]<typename T>(T) {
    launch(fused_attention<T, D, BLOCK_M, BLOCK_N, TM, TN, Form>,
           {.name = "fused_attention",
            .grid = dim3(p.batch * p.heads * ceil_div(p.seq, BLOCK_M)),
            .block = dim3(Tile::THREADS),
            .shared_bytes = Tile::shared(),
            .stream = stream},
           static_cast<const T*>(a.q), static_cast<const T*>(a.k), static_cast<const T*>(a.v),
           static_cast<T*>(a.out), a.lse, KernelShape(p));
  });
}

}  // namespace al::fused1
