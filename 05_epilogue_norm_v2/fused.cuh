// All of attention in one kernel on the CUDA cores, as FlashAttention-2 (Dao, 2023) arranges it: O
// is normalised once, at the end. And eight changes to chapter 04's kernel, each of which can be
// undone to see what it is worth.
//
//   Q [B·Hq, Nq, D]   K, V [B·Hkv, Nkv, D]   O [B·Hq, Nq, D]   LSE [B·Hq, Nq] fp32, or nullptr
//
// A block owns BLOCK_M queries of one head and walks over all keys, BLOCK_N at a time:
//
//   S = scale · Q Kᵀ       D in chunks of BLOCK_D
//   m, l, P                a step of the online softmax, by rows
//   O = alpha · O + P V    keys in chunks of BLOCK_K
//
// All arithmetic is fp32 whatever the inputs' type. A hidden key's V is never multiplied, not even
// by zero, for 0 · NaN is NaN.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "common/dispatch.cuh"
#include "common/kernel_shape.cuh"
#include "common/launch.cuh"
#include "common/ptx/cp_async.cuh"
#include "common/ptx/exp2.cuh"
#include "common/stage.hpp"
#include "common/vector.cuh"

namespace al::fused2 {

// [snippet changes]
// What this chapter changes, one bit each.
enum Change : unsigned {
  kEpilogueNorm = 1,   // divide by l once, after the last tile
  kExp2 = 2,           // scale · log2(e) goes into Q, exp becomes ex2
  kEarlyExit = 4,      // stop at the last key that the tile's last row sees
  kTwoPass = 8,        // tiles without hidden keys first, in a loop that has no mask
  kByLength = 16,      // the blocks with the most keys first, dealt to the SMs there and back
  kPaddedP = 32,       // pad P, so that its stores spread over the banks
  kPrefetch = 64,      // start the next copy before multiplying this chunk
  kSkipRescale = 128,  // leave O as it is while no maximum has grown by more than a factor of 2^8
  kAllChanges = 255
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
template <typename Element, int HEAD_DIM, int ROWS, int KEYS, int THREAD_ROWS, int THREAD_KEYS,
          unsigned CHANGE_BITS = kAllChanges>
struct FusedTile {
  using T = Element;
  static constexpr unsigned CHANGES = CHANGE_BITS;
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

  // K and V pass through two buffers in chunks: one is multiplied while the next one arrives.
  static constexpr int CHUNK = BLOCK_M < 128 && D > 64 ? 2048 : 4096;  // elements
  static constexpr int BLOCK_D = std::min(D, CHUNK / BLOCK_N);
  static constexpr int BLOCK_K = std::min(BLOCK_N, CHUNK / D);
  // What is summed over comes first: a product is a sum of outer products, column by row.
  using Q_tile = float[D][BLOCK_M];
  static constexpr int P_WIDTH = BLOCK_M + (CHANGES & kPaddedP ? 4 : 0);
  using P_tile = float[BLOCK_N][P_WIDTH];
  union KV_chunk {
    float K[BLOCK_D][BLOCK_N];
    float V[BLOCK_K][D];
  };
  // Copies bring a chunk as it is, 16 bytes at a time; each thread widens those it started itself.
  static constexpr int VEC = 16 / sizeof(T);
  static constexpr int COPIES = BLOCK_K * D / VEC / THREADS;
  static_assert(COPIES * VEC * THREADS == BLOCK_K * D && BLOCK_K * D == BLOCK_N * BLOCK_D);
  using Narrow_chunk = T[COPIES][THREADS][VEC];
  static constexpr std::size_t shared() {
    return shared_bytes<Q_tile, P_tile, KV_chunk[2], Narrow_chunk>();
  }

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

// Starts to copy the first `rows` rows of a chunk; the others become zero.
template <typename Tile, int ROWS, int COLUMNS, bool DOWN, typename T>
__device__ __forceinline__ void start_copy(typename Tile::Narrow_chunk& narrow, const T* matrix,
                                           int rows) {
  for_my_vectors<ROWS, COLUMNS, Tile::VEC, Tile::THREADS, DOWN>([&](int n, int r, int c) {
    const bool exists = r < rows;
    cp_async_16(narrow[n][threadIdx.x], matrix + (exists ? r * Tile::D + c : 0), exists ? 16 : 0);
  });
  cp_async_commit();
}

// What has arrived, widened to fp32: as it lies …
template <typename Tile, int ROWS, int COLUMNS>
__device__ __forceinline__ void widen_chunk(float (&smem)[ROWS][COLUMNS],
                                            const typename Tile::Narrow_chunk& narrow) {
  for_my_vectors<ROWS, COLUMNS, Tile::VEC, Tile::THREADS, false>([&](int n, int r, int c) {
    float x[Tile::VEC];
    widen(x, narrow[n][threadIdx.x]);
#pragma unroll
    for (int e = 0; e < Tile::VEC; e += 4) {
      store4(&smem[r][c + e], make_float4(x[e], x[e + 1], x[e + 2], x[e + 3]));
    }
  });
}

// … or transposed.
template <typename Tile, int COLUMNS, int ROWS>
__device__ __forceinline__ void widen_transposed(float (&smem)[COLUMNS][ROWS],
                                                 const typename Tile::Narrow_chunk& narrow) {
  for_my_vectors<ROWS, COLUMNS, Tile::VEC, Tile::THREADS, true>([&](int n, int r, int c) {
    float x[Tile::VEC];
    widen(x, narrow[n][threadIdx.x]);
#pragma unroll
    for (int e = 0; e < Tile::VEC; ++e) smem[c + e][r] = x[e];
  });
}
// [/snippet]

// The first `rows` rows of Q, times `factor` and transposed; the others become zero.
template <typename Tile, typename T>
__device__ __forceinline__ void load_Q(typename Tile::Q_tile& smem, const T* Q, int rows,
                                       float factor) {
  for_my_vectors<Tile::BLOCK_M, Tile::D, Tile::VEC, Tile::THREADS, true>([&](int, int r, int c) {
    float x[Tile::VEC] = {};
    if (r < rows) widen(x, Q + (r * Tile::D + c));
#pragma unroll
    for (int e = 0; e < Tile::VEC; ++e) smem[c + e][r] = x[e] * factor;
  });
}

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

constexpr float kLog2e = 1.44269504088896340736f, kLn2 = 0.69314718055994530942f;

// 2^x in one instruction, or e^x in several.
template <bool EXP2>
__device__ __forceinline__ float exponential(float x) {
  return EXP2 ? fast_exp2(x) : expf(x);
}

// What to subtract from a row whose maximum is m: with nothing but -inf in it, 0 instead of m, and
// exp(-inf - 0) is 0, where exp(-inf - -inf) would be NaN.
__device__ __forceinline__ float finite(float m) { return m == -INFINITY ? 0.0f : m; }

// [snippet deal]
// Blocks 0, 1, 2 … begin on SMs 0, 1, 2 …, and when each SM has one, on SM 0 again. Their rank in
// length, dealt as cards are, there and back, so that the SM with the longest block of the first
// round gets the shortest of the second.
__device__ __forceinline__ int there_and_back(int block, int blocks, int sms) {
  const int round = block / sms, first = round * sms;
  return round % 2 == 0 ? block : first + min(first + sms, blocks) - 1 - block;
}
// [/snippet]

// [snippet indices]
template <typename Tile>
__global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS_PER_SM)
    fused_attention(const typename Tile::T* Q, const typename Tile::T* K, const typename Tile::T* V,
                    typename Tile::T* O, float* LSE, KernelShape shape, [[maybe_unused]] int sms) {
  constexpr int D = Tile::D, BLOCK_M = Tile::BLOCK_M, BLOCK_N = Tile::BLOCK_N;
  constexpr int BLOCK_D = Tile::BLOCK_D, BLOCK_K = Tile::BLOCK_K;
  constexpr int TM = Tile::TM, TN = Tile::TN, TD = Tile::TD;
  constexpr bool EPILOGUE_NORM = Tile::CHANGES & kEpilogueNorm, EXP2 = Tile::CHANGES & kExp2,
                 EARLY_EXIT = Tile::CHANGES & kEarlyExit, TWO_PASS = Tile::CHANGES & kTwoPass,
                 BY_LENGTH = Tile::CHANGES & kByLength, PREFETCH = Tile::CHANGES & kPrefetch,
                 SKIP_RESCALE = Tile::CHANGES & kSkipRescale;
  const int tiles = ceil_div(shape.Nq, BLOCK_M), heads = gridDim.x / tiles;
  const int rank = BY_LENGTH ? there_and_back(blockIdx.x, gridDim.x, sms) : blockIdx.x;
  const int bh = BY_LENGTH ? rank % heads : rank / tiles;
  const int tile = BY_LENGTH ? tiles - 1 - rank / heads : rank % tiles;
  const int row0 = tile * BLOCK_M;
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
  auto& KV_smem = shared.take<typename Tile::KV_chunk[2]>("KV_smem");
  auto& narrow = shared.take<typename Tile::Narrow_chunk>("narrow");

  float O_rmem[TM][TD] = {};
  float m_rmem[TM], l_rmem[TM] = {};
#pragma unroll
  for (int m = 0; m < TM; ++m) m_rmem[m] = -INFINITY;
  // [/snippet]

  // [snippet scores]
  // The tile's first row sees the fewest keys, its last row the most.
  const int first_sees = shape.visible_keys(row0);
  const int last_sees = shape.visible_keys(min(row0 + BLOCK_M, shape.Nq) - 1);
  const int keys = EARLY_EXIT ? last_sees : shape.Nkv;
  const auto start_K = [&](int j0, int d0) {
    start_copy<Tile, BLOCK_N, BLOCK_D, true>(narrow, K_head + (j0 * D + d0), shape.Nkv - j0);
  };
  const auto start_V = [&](int j) {
    start_copy<Tile, BLOCK_K, D, false>(narrow, V_head + j * D, shape.Nkv - j);
  };
  if (PREFETCH && keys > 0) start_K(0, 0);
  // The scale's sign goes into Q, so that the largest score is that of the largest product.
  const float sign = shape.scale > 0 ? 1.0f : shape.scale < 0 ? -1.0f : 0.0f;
  load_Q<Tile>(Q_smem, Q_rows, shape.Nq - row0, EXP2 ? sign : 1.0f);
  const float to_exponent = EXP2 && sign != 0 ? fabsf(shape.scale) * kLog2e : 1.0f;
  int b = 0;  // the buffer of the next chunk

  // Takes in keys j0 … j0 + BLOCK_N - 1. MASKED: some row may not see all of them.
  const auto take_in = [&]<bool MASKED>(std::bool_constant<MASKED>, int j0) {
    // S = Q Kᵀ  [BLOCK_M, BLOCK_N]
    float S_rmem[TM][TN] = {};
    for (int d0 = 0; d0 < D; d0 += BLOCK_D, b ^= 1) {
      if (!PREFETCH) start_K(j0, d0);
      cp_async_wait<0>();  // this thread's part has arrived
      widen_transposed<Tile>(KV_smem[b].K, narrow);
      __syncthreads();  // the chunk is complete; everyone is done reading the one before
      if (PREFETCH) d0 + BLOCK_D < D ? start_K(j0, d0 + BLOCK_D) : start_V(j0);
      multiply<Tile, false, BLOCK_M, BLOCK_N>(S_rmem, &Q_smem[d0][my_row], &KV_smem[b].K[0][4 * tx],
                                              0, BLOCK_D);
    }
    // [/snippet]

    // [snippet softmax]
    // m, l, P. Of this tile's keys, row m sees the first visible(m).
    const int visible_0 = shape.visible_keys(row0 + my_row) - j0;
    const auto visible = [&](int m) { return visible_0 + (shape.causal ? Tile::row(m) : 0); };
    const bool masked = MASKED && (TWO_PASS || j0 + BLOCK_N > first_sees);
    float alpha[TM], top[TM];  // top: a row's largest score, of this thread's keys
#pragma unroll
    for (int m = 0; m < TM; ++m) {
      alpha[m] = 1, top[m] = -INFINITY;
#pragma unroll
      for (int n = 0; n < TN; ++n) {
        if (!EXP2) S_rmem[m][n] *= shape.scale;
        if (masked && 4 * tx + Tile::column(n) >= visible(m)) S_rmem[m][n] = -INFINITY;
        top[m] = fmaxf(top[m], S_rmem[m][n]);
      }
    }
    bool grown = !SKIP_RESCALE;
    if constexpr (SKIP_RESCALE) {
#pragma unroll
      for (int m = 0; m < TM; ++m) grown |= top[m] * to_exponent > m_rmem[m] + 8;
      grown = __any_sync(0xffffffff, grown);
    }
    if (grown) {
#pragma unroll
      for (int m = 0; m < TM; ++m) {
        top[m] = row_reduce<Tile>(top[m], [](float x, float y) { return fmaxf(x, y); });
        const float m_new = fmaxf(m_rmem[m], top[m] * to_exponent);
        // [hole rescale]
        alpha[m] = exponential<EXP2>(m_rmem[m] - finite(m_new));
        m_rmem[m] = m_new;
        if constexpr (EPILOGUE_NORM) {
          l_rmem[m] *= alpha[m];
#pragma unroll
          for (int n = 0; n < TD; ++n) O_rmem[m][n] *= alpha[m];
        }
        // [/hole]
      }
    }
#pragma unroll
    for (int m = 0; m < TM; ++m) {
      const float minus_m = -finite(m_rmem[m]);
      float sum = 0;
#pragma unroll
      for (int n = 0; n < TN; ++n) {
        sum += S_rmem[m][n] = exponential<EXP2>(fmaf(S_rmem[m][n], to_exponent, minus_m));
      }
      if constexpr (EPILOGUE_NORM) {
        l_rmem[m] += sum;  // of this thread's keys; the row's lanes add theirs up at the end
      } else {
        sum = row_reduce<Tile>(sum, [](float x, float y) { return x + y; });
        const float l_new = alpha[m] * l_rmem[m] + sum;
        const float weight = l_new > 0 ? 1 / l_new : 0.0f;
        const float keep = alpha[m] * l_rmem[m] * weight;
#pragma unroll
        for (int n = 0; n < TD; ++n) O_rmem[m][n] *= keep;
#pragma unroll
        for (int n = 0; n < TN; ++n) S_rmem[m][n] *= weight;
        l_rmem[m] = l_new;
      }
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
    __syncwarp();  // its rows of P are complete
    // [/snippet]

    // [snippet values]
    // O += P V  [BLOCK_M, D]
    for (int k0 = 0; k0 < BLOCK_N; k0 += BLOCK_K, b ^= 1) {
      if (!PREFETCH) start_V(j0 + k0);
      cp_async_wait<0>();  // this thread's part has arrived
      widen_chunk<Tile>(KV_smem[b].V, narrow);
      __syncthreads();  // the chunk is complete; everyone is done reading the one before
      if (PREFETCH && k0 + BLOCK_K < BLOCK_N) start_V(j0 + k0 + BLOCK_K);
      if (PREFETCH && k0 + BLOCK_K >= BLOCK_N && j0 + BLOCK_N < keys) start_K(j0 + BLOCK_N, 0);
      const float *P_mine = &P_smem[k0][my_row], *V_mine = &KV_smem[b].V[0][4 * tx];
      if (!masked) {
        multiply<Tile, false, Tile::P_WIDTH, D>(O_rmem, P_mine, V_mine, 0, BLOCK_K);
      } else {
        // The chunk's first keys are seen by all of the warp's rows, the last ones by none.
        const int warp_sees = visible_0 - (shape.causal ? 4 * ty : 0) - k0;  // its first row
        const int all_see = TWO_PASS ? min(max(warp_sees, 0), BLOCK_K) : 0;
        const int some_see =
            TWO_PASS ? min(warp_sees + (shape.causal ? Tile::WARP_M - 1 : 0), BLOCK_K) : BLOCK_K;
        multiply<Tile, false, Tile::P_WIDTH, D>(O_rmem, P_mine, V_mine, 0, all_see);
        multiply<Tile, true, Tile::P_WIDTH, D>(O_rmem, P_mine, V_mine, all_see, some_see,
                                               [&](int m) { return visible(m) - k0; });
      }
    }
  };
  int j0 = 0;
  if constexpr (TWO_PASS) {
    for (; j0 + BLOCK_N <= first_sees; j0 += BLOCK_N) take_in(std::false_type(), j0);
  }
  for (; j0 < keys; j0 += BLOCK_N) take_in(std::true_type(), j0);
  // [/snippet]

  // [snippet epilogue]
  auto* O_head = O + size_t(bh) * shape.Nq * D;  // [Nq, D]
#pragma unroll
  for (int m = 0; m < TM; ++m) {
    float l = l_rmem[m];
    if (EPILOGUE_NORM) l = row_reduce<Tile>(l, [](float x, float y) { return x + y; });
    const float finish = !EPILOGUE_NORM ? 1 : l > 0 ? 1 / l : 0.0f;
    const int i = row0 + my_row + Tile::row(m);
    if (i >= shape.Nq) continue;
#pragma unroll
    for (int n = 0; n < TD; n += 4) {
      store4(O_head + (i * D + 4 * tx + Tile::column(n)),
             make_float4(O_rmem[m][n] * finish, O_rmem[m][n + 1] * finish,
                         O_rmem[m][n + 2] * finish, O_rmem[m][n + 3] * finish));
    }
    if (LSE && tx == 0) {
      LSE[size_t(bh) * shape.Nq + i] = (EXP2 ? kLn2 * m_rmem[m] : m_rmem[m]) + logf(l);
    }
  }
}
// [/snippet]

// One head's Q, K and V must stay below 2^31 elements.
template <typename Tile>
void launch_tile(const Problem& p, const Arguments& a, Stream stream) {
  using T = typename Tile::T;
  launch(fused_attention<Tile>,
         {.name = "fused_attention",
          .grid = dim3(p.batch * p.heads * ceil_div(p.seq, Tile::BLOCK_M)),
          .block = dim3(Tile::THREADS),
          .shared_bytes = Tile::shared(),
          .stream = stream},
         static_cast<const T*>(a.q), static_cast<const T*>(a.k), static_cast<const T*>(a.v),
         static_cast<T*>(a.out), a.lse, KernelShape(p), device().sms);
}

// D must be p.head_dim.
template <int D, int BLOCK_M, int BLOCK_N, int TM, int TN, unsigned CHANGES = kAllChanges>
void launch_fused(const Problem& p, const Arguments& a, Stream stream) {
  dispatch(p.dtype, [&]<typename T>(T) {
    launch_tile<FusedTile<T, D, BLOCK_M, BLOCK_N, TM, TN, CHANGES>>(p, a, stream);
  });
}

// [snippet choose]
// A large tile reuses most …
template <typename T, int D, unsigned CHANGES = kAllChanges>
using LargeTile = FusedTile<T, D, 128,
                            D == 16    ? 32
                            : D == 128 ? 128
                                       : 64,
                            8, D == 256 ? 4 : 8, CHANGES>;

// … many small ones keep every SM busy.
template <typename T, int D, unsigned CHANGES = kAllChanges>
using SmallTile = FusedTile < T,
      D, 32, D == 16 ? 32 : 64, 4, D<64 ? 8 : 4, CHANGES>;

// Large, if the SMs have the shared memory and each of them gets 256 threads.
template <typename Large>
bool choose_large(const Problem& p, const DeviceInfo& device) {
  const std::int64_t blocks = std::int64_t{p.batch} * p.heads * ceil_div(p.seq, Large::BLOCK_M);
  return Large::shared() <= device.shared_per_block && blocks * Large::THREADS >= 256 * device.sms;
}
// [/snippet]

}  // namespace al::fused2
