// All of attention in one kernel on the CUDA cores, with the structure of FlashAttention (Dao et
// al., 2022, algorithm 1): S and P live and die on the chip, and O is kept normalised all the
// while.
//
//   Q [B·Hq, Nq, D]   K, V [B·Hkv, Nkv, D]   O [B·Hq, Nq, D]   LSE [B·Hq, Nq] fp32, or nullptr
//
// A block owns BLOCK_M queries of one head and walks over all keys, BLOCK_N at a time:
//
//   S = scale · Q Kᵀ       D in chunks of BLOCK_D
//   m, l, P                a step of the online softmax, by rows
//   O = keep · O + P V     keys in chunks of BLOCK_K
//
// All arithmetic is fp32 whatever the inputs' type. A hidden key's V is never multiplied, not even
// by zero, for 0 · NaN is NaN.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/dispatch.cuh"
#include "common/kernel_shape.cuh"
#include "common/launch.cuh"
#include "common/stage.hpp"
#include "common/vector.cuh"

namespace al::fused1 {

// [snippet recurrence]
// How a row takes in a tile of keys. It comes with O, the weighted average of V over the keys so
// far, and l, the sum of their exp(s - m). The tile raises the maximum, by which each of those
// terms shrinks to `alpha` of itself, and the sum becomes l_new.
struct Recurrence {
  // What the old average counts in the new one …
  static __device__ float keep(float alpha, float l, float l_new) { return alpha * l / l_new; }
  // … what exp(s - m) = 1 of a new key counts …
  static __device__ float weight(float l_new) { return 1 / l_new; }
  // … and what is left to do after the last tile: nothing.
  static __device__ float finish(float) { return 1; }
};
// [/snippet]

// The tile of a block, and what a thread of it owns.
//
// clang-format off
//            tx: 0     1     2     3   …               one warp at LANES_N = 8: 32 lanes as 4 x 8
//   ty 0  lanes  0     2     8    10   …
//   ty 1         1     3     9    11
//   ty 2         4     6    12    14
//   ty 3         5     7    13    15
// clang-format on
//
// A warp owns LANES_M · TM rows next to each other, of S, P and O alike, and each of these rows is
// shared by LANES_N of its lanes: whatever concerns a row is settled within the warp. Thread
// (ty, tx) has TM of the rows, TN keys of S and TD columns of O, all of them four at a time: 4·ty,
// 4·ty + 1, 4·ty + 2, 4·ty + 3, the next four 4·LANES_M further on; likewise 4·tx and 4·LANES_N.
// Lanes are dealt so that every 16-byte load has pairs (n, n + 1) or (n, n + 2) that want the same
// address, as in chapters 01 and 03.
// [snippet tile]
template <typename Element, int HEAD_DIM, int ROWS, int KEYS, int THREAD_ROWS, int THREAD_KEYS>
struct FusedTile {
  using T = Element;
  static constexpr int D = HEAD_DIM, BLOCK_M = ROWS, BLOCK_N = KEYS;
  static constexpr int TM = THREAD_ROWS, TN = THREAD_KEYS;
  static constexpr int LANES_N = BLOCK_N / TN, LANES_M = 32 / LANES_N;
  static constexpr int TD = D / LANES_N;
  static constexpr int WARP_M = LANES_M * TM;
  static constexpr int THREADS = BLOCK_M / WARP_M * 32;
  static_assert(LANES_M >= 2 && LANES_N >= 4 && LANES_M * LANES_N == 32);
  static_assert(TM % 4 == 0 && TN % 4 == 0 && TD % 4 == 0, "owned four at a time");
  static_assert(BLOCK_M % WARP_M == 0 && LANES_N * TN == BLOCK_N && LANES_N * TD == D);
  // As many threads on an SM as their registers allow: S and O, and as many again as an 8 x 8 step
  // of the products takes.
  static constexpr int SM_THREADS = TM * (TN + TD) > 64 ? 256 : 512;
  static constexpr int BLOCKS_PER_SM = std::max(1, SM_THREADS / THREADS);

  // K and V pass through one buffer in chunks.
  static constexpr int CHUNK = BLOCK_M < 128 ? 2048 : 16384;  // elements
  static constexpr int BLOCK_D = std::min(D, CHUNK / BLOCK_N);
  static constexpr int BLOCK_K = std::min(BLOCK_N, CHUNK / D);
  static constexpr int VEC = 16 / sizeof(T);  // elements of a 16-byte load
  // What is summed over comes first: a product is a sum of outer products, column by row.
  using Q_tile = float[D][BLOCK_M];
  using P_tile = float[BLOCK_N][BLOCK_M];
  union KV_chunk {
    float K[BLOCK_D][BLOCK_N];
    float V[BLOCK_K][D];
  };
  static constexpr std::size_t shared() { return shared_bytes<Q_tile, P_tile, KV_chunk>(); }

  // Where a thread's m-th row and n-th key or column lie, seen from its first.
  static __device__ constexpr int row(int m) { return m % 4 + m / 4 * 4 * LANES_M; }
  static __device__ constexpr int column(int n) { return n % 4 + n / 4 * 4 * LANES_N; }
};
// [/snippet]

// [snippet load]
// 16 bytes, widened.
template <typename T, int VEC>
__device__ __forceinline__ void widen(float (&x)[VEC], const T* from) {
#pragma unroll
  for (int e = 0; e < VEC; e += 4) {
    const float4 four = load4(from + e);
    x[e] = four.x, x[e + 1] = four.y, x[e + 2] = four.z, x[e + 3] = four.w;
  }
}

// Calls f(n, r, c) for the vectors of a ROWS x COLUMNS matrix that are this thread's: the n-th
// holds elements c … c + VEC - 1 of row r. Neighbouring lanes take neighbours in a row or, with
// DOWN, in a column: what they then store transposed lies side by side.
template <int ROWS, int COLUMNS, int VEC, int THREADS, bool DOWN, typename F>
__device__ __forceinline__ void for_my_vectors(F f) {
  constexpr int ALONG = COLUMNS / VEC;  // vectors in a row
  constexpr int R = !DOWN ? THREADS / ALONG : ROWS < THREADS ? ROWS : THREADS;
  constexpr int C = THREADS / R;  // the block takes R x C vectors at once
  static_assert(R * C == THREADS && ROWS % R == 0 && ALONG % C == 0);
  const int r = DOWN ? threadIdx.x % R : threadIdx.x / C;
  const int c = DOWN ? threadIdx.x / R : threadIdx.x % C;
#pragma unroll
  for (int n = 0; n < ROWS / R * (ALONG / C); ++n) {
    f(n, r + n % (ROWS / R) * R, (c + n / (ROWS / R) * C) * VEC);
  }
}

// The first `rows` rows of a matrix whose rows are D apart, widened to fp32; the others become
// zero. As they lie …
template <typename Tile, int ROWS, int COLUMNS>
__device__ __forceinline__ void load_tile(float (&smem)[ROWS][COLUMNS],
                                          const typename Tile::T* matrix, int rows) {
  for_my_vectors<ROWS, COLUMNS, Tile::VEC, Tile::THREADS, false>([&](int, int r, int c) {
    float x[Tile::VEC] = {};
    if (r < rows) widen(x, matrix + (r * Tile::D + c));
#pragma unroll
    for (int e = 0; e < Tile::VEC; e += 4) {
      store4(&smem[r][c + e], make_float4(x[e], x[e + 1], x[e + 2], x[e + 3]));
    }
  });
}

// … or transposed.
template <typename Tile, int COLUMNS, int ROWS>
__device__ __forceinline__ void load_transposed(float (&smem)[COLUMNS][ROWS],
                                                const typename Tile::T* matrix, int rows) {
  for_my_vectors<ROWS, COLUMNS, Tile::VEC, Tile::THREADS, true>([&](int, int r, int c) {
    float x[Tile::VEC] = {};
    if (r < rows) widen(x, matrix + (r * Tile::D + c));
#pragma unroll
    for (int e = 0; e < Tile::VEC; ++e) smem[c + e][r] = x[e];
  });
}
// [/snippet]

// N numbers, four neighbours at a time, the next four STEP further on.
template <int STEP, int N>
__device__ __forceinline__ void load_fours(float (&x)[N], const float* from) {
#pragma unroll
  for (int n = 0; n < N; n += 4) {
    const float4 four = load4(from + n / 4 * STEP);
    x[n] = four.x, x[n + 1] = four.y, x[n + 2] = four.z, x[n + 3] = four.w;
  }
}

// [snippet multiply]
// C += A B over columns begin … end - 1 of A (rows of `a`) and rows of B, of which `a` and `b` are
// this thread's first elements. With MASKED, row m takes the first `visible(m)` of them only; the
// others are not multiplied at all.
template <typename Tile, bool MASKED, int A_WIDTH, int B_WIDTH, int TM, int TN,
          typename Visible = int>
__device__ __forceinline__ void multiply(float (&C_rmem)[TM][TN], const float* a, const float* b,
                                         int begin, int end,
                                         [[maybe_unused]] Visible visible = {}) {
#pragma unroll(MASKED ? 1 : 16)
  for (int k = begin; k < end; ++k) {
    float A_rmem[TM], B_rmem[TN];
    load_fours<4 * Tile::LANES_M>(A_rmem, a + k * A_WIDTH);
    load_fours<4 * Tile::LANES_N>(B_rmem, b + k * B_WIDTH);
#pragma unroll
    for (int m = 0; m < TM; ++m) {
      if constexpr (MASKED) {
        if (k >= visible(m)) continue;
      }
#pragma unroll
      for (int x = 0; x < TN; ++x) {
        const int n = m % 2 == 0 ? x : TN - 1 - x;
        C_rmem[m][n] += A_rmem[m] * B_rmem[n];
      }
    }
  }
}
// [/snippet]

// [snippet reduce]
// op over the x of the lanes that share a row.
template <typename Tile, typename Op>
__device__ __forceinline__ float row_reduce(float x, Op op) {
  x = op(x, __shfl_xor_sync(0xffffffff, x, 2));
#pragma unroll
  for (int lanes = 16; lanes >= 2 * Tile::LANES_M; lanes /= 2) {
    x = op(x, __shfl_xor_sync(0xffffffff, x, lanes));
  }
  return x;
}
// [/snippet]

// What to subtract from a row whose maximum is m: with nothing but -inf in it, 0 instead of m, and
// exp(-inf - 0) is 0, where exp(-inf - -inf) would be NaN.
__device__ __forceinline__ float finite(float m) { return m == -INFINITY ? 0.0f : m; }

// [snippet indices]
template <typename Tile, typename Form = Recurrence>
__global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS_PER_SM)
    fused_attention(const typename Tile::T* Q, const typename Tile::T* K, const typename Tile::T* V,
                    typename Tile::T* O, float* LSE, KernelShape shape) {
  constexpr int D = Tile::D, BLOCK_M = Tile::BLOCK_M, BLOCK_N = Tile::BLOCK_N;
  constexpr int BLOCK_D = Tile::BLOCK_D, BLOCK_K = Tile::BLOCK_K;
  constexpr int TM = Tile::TM, TN = Tile::TN, TD = Tile::TD;
  const int tiles = ceil_div(shape.Nq, BLOCK_M);
  const int bh = blockIdx.x / tiles, row0 = blockIdx.x % tiles * BLOCK_M;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int ty = lane % 2 + lane / 4 % (Tile::LANES_M / 2) * 2;
  const int tx = lane / 2 % 2 + lane / (2 * Tile::LANES_M) * 2;
  const int my_row = warp * Tile::WARP_M + 4 * ty;  // the thread's first, in the block's tile

  const auto* Q_rows = Q + (size_t(bh) * shape.Nq + row0) * D;         // [rows, D]
  const auto* K_head = K + size_t(shape.kv_head(bh)) * shape.Nkv * D;  // [Nkv, D]
  const auto* V_head = V + size_t(shape.kv_head(bh)) * shape.Nkv * D;  // [Nkv, D]

  SharedArena shared;
  auto& Q_smem = shared.take<typename Tile::Q_tile>("Q_smem");
  auto& P_smem = shared.take<typename Tile::P_tile>("P_smem");
  auto& KV_smem = shared.take<typename Tile::KV_chunk>("KV_smem");

  float O_rmem[TM][TD] = {};
  float m_rmem[TM], l_rmem[TM] = {};
#pragma unroll
  for (int m = 0; m < TM; ++m) m_rmem[m] = -INFINITY;
  // [/snippet]

  // [snippet scores]
  load_transposed<Tile>(Q_smem, Q_rows, shape.Nq - row0);
  for (int j0 = 0; j0 < shape.Nkv; j0 += BLOCK_N) {
    // S = Q Kᵀ  [BLOCK_M, BLOCK_N]
    float S_rmem[TM][TN] = {};
    for (int d0 = 0; d0 < D; d0 += BLOCK_D) {
      __syncthreads();  // everyone is done reading the chunk before
      load_transposed<Tile>(KV_smem.K, K_head + (j0 * D + d0), shape.Nkv - j0);
      __syncthreads();  // the chunk is complete
      multiply<Tile, false, BLOCK_M, BLOCK_N>(S_rmem, &Q_smem[d0][my_row], &KV_smem.K[0][4 * tx], 0,
                                              BLOCK_D);
    }
    // [/snippet]

    // [snippet softmax]
    // m, l, P. Of this tile's keys, row m sees the first visible(m); the tile's first row sees the
    // fewest.
    const int visible_0 = shape.visible_keys(row0 + my_row) - j0;
    const auto visible = [&](int m) { return visible_0 + (shape.causal ? Tile::row(m) : 0); };
    const bool masked = j0 + BLOCK_N > shape.visible_keys(row0);
#pragma unroll
    for (int m = 0; m < TM; ++m) {
      float m_new = -INFINITY;
#pragma unroll
      for (int n = 0; n < TN; ++n) {
        S_rmem[m][n] *= shape.scale;
        if (masked && 4 * tx + Tile::column(n) >= visible(m)) S_rmem[m][n] = -INFINITY;
        m_new = fmaxf(m_new, S_rmem[m][n]);
      }
      m_new =
          fmaxf(m_rmem[m], row_reduce<Tile>(m_new, [](float a, float b) { return fmaxf(a, b); }));

      float sum = 0;
#pragma unroll
      for (int n = 0; n < TN; ++n) sum += S_rmem[m][n] = expf(S_rmem[m][n] - finite(m_new));
      sum = row_reduce<Tile>(sum, [](float a, float b) { return a + b; });
      const float alpha = expf(m_rmem[m] - finite(m_new));
      const float l_new = alpha * l_rmem[m] + sum;

      const bool seen = l_new > 0;  // else there is nothing yet to be normalised
      const float keep = seen ? Form::keep(alpha, l_rmem[m], l_new) : 0.0f;
      const float weight = seen ? Form::weight(l_new) : 0.0f;
#pragma unroll
      for (int n = 0; n < TD; ++n) O_rmem[m][n] *= keep;
#pragma unroll
      for (int n = 0; n < TN; ++n) S_rmem[m][n] *= weight;
      m_rmem[m] = m_new, l_rmem[m] = l_new;
    }
    __syncwarp();  // the warp is done reading its rows of P of the tile before
#pragma unroll
    for (int n = 0; n < TN; ++n) {
#pragma unroll
      for (int m = 0; m < TM; m += 4) {
        store4(&P_smem[4 * tx + Tile::column(n)][my_row + Tile::row(m)],
               make_float4(S_rmem[m][n], S_rmem[m + 1][n], S_rmem[m + 2][n], S_rmem[m + 3][n]));
      }
    }
    // [/snippet]

    // [snippet values]
    // O += P V  [BLOCK_M, D]
    for (int k0 = 0; k0 < BLOCK_N; k0 += BLOCK_K) {
      __syncthreads();  // everyone is done reading the chunk before; P is complete
      load_tile<Tile>(KV_smem.V, V_head + (j0 + k0) * D, shape.Nkv - (j0 + k0));
      __syncthreads();  // the chunk is complete
      const float *P_mine = &P_smem[k0][my_row], *V_mine = &KV_smem.V[0][4 * tx];
      if (!masked) {
        multiply<Tile, false, BLOCK_M, D>(O_rmem, P_mine, V_mine, 0, BLOCK_K);
      } else {
        multiply<Tile, true, BLOCK_M, D>(O_rmem, P_mine, V_mine, 0, BLOCK_K,
                                         [&](int m) { return visible(m) - k0; });
      }
    }
  }
  // [/snippet]

  // [snippet epilogue]
  auto* O_head = O + size_t(bh) * shape.Nq * D;  // [Nq, D]
#pragma unroll
  for (int m = 0; m < TM; ++m) {
    const int i = row0 + my_row + Tile::row(m);
    if (i >= shape.Nq) continue;
    const float finish = Form::finish(l_rmem[m]);
#pragma unroll
    for (int n = 0; n < TD; n += 4) {
      store4(O_head + (i * D + 4 * tx + Tile::column(n)),
             make_float4(O_rmem[m][n] * finish, O_rmem[m][n + 1] * finish,
                         O_rmem[m][n + 2] * finish, O_rmem[m][n + 3] * finish));
    }
    if (LSE && tx == 0) LSE[size_t(bh) * shape.Nq + i] = m_rmem[m] + logf(l_rmem[m]);
  }
}
// [/snippet]

// One head's Q, K and V must stay below 2^31 elements.
template <typename Tile, typename Form = Recurrence>
void launch_tile(const Problem& p, const Arguments& a, Stream stream) {
  using T = typename Tile::T;
  launch(fused_attention<Tile, Form>,
         {.name = "fused_attention",
          .grid = dim3(p.batch * p.heads * ceil_div(p.seq, Tile::BLOCK_M)),
          .block = dim3(Tile::THREADS),
          .shared_bytes = Tile::shared(),
          .stream = stream},
         static_cast<const T*>(a.q), static_cast<const T*>(a.k), static_cast<const T*>(a.v),
         static_cast<T*>(a.out), a.lse, KernelShape(p));
}

// D must be p.head_dim.
template <int D, int BLOCK_M, int BLOCK_N, int TM, int TN, typename Form = Recurrence>
void launch_fused(const Problem& p, const Arguments& a, Stream stream) {
  dispatch(p.dtype, [&]<typename T>(T) {
    launch_tile<FusedTile<T, D, BLOCK_M, BLOCK_N, TM, TN>, Form>(p, a, stream);
  });
}

// [snippet choose]
// A large tile reuses most …
template <typename T, int D>
using LargeTile = FusedTile<T, D, 128,
                            D == 16    ? 32
                            : D == 128 ? 128
                                       : 64,
                            8, D == 256 ? 4 : 8>;

// … many small ones keep every SM busy.
template <typename T, int D>
using SmallTile = FusedTile<T, D, 32, D == 16 ? 32 : 64, 4, (D < 64 ? 8 : 4)>;

// Large, if the SMs have the shared memory and each of them gets 256 threads.
template <typename Large>
bool choose_large(const Problem& p, const DeviceInfo& device) {
  const std::int64_t blocks = std::int64_t{p.batch} * p.heads * ceil_div(p.seq, Large::BLOCK_M);
  return Large::shared() <= device.shared_per_block && blocks * Large::THREADS >= 256 * device.sms;
}
// [/snippet]

}  // namespace al::fused1
