// P = softmax(S), row by row, in three ways.
//
//   three_pass  a block a row; reads it for the maximum, for the sum, and to write
//   one_pass    a warp or a block a row; the row is read once and stays in registers
//   online      a block a row; maximum and sum together in one pass, then a second pass writes
//
//   S [rows, Nkv]   P [rows, Nkv]   LSE [rows] fp32 or nullptr       rows = B·Hq·Nq
//
// S and P start at a multiple of 16 bytes; their rows do so only if Nkv allows it. Row i of a head
// ends after its visible_keys(i) first entries: what lies beyond is neither read nor written. A
// row without a finite score has P = 0 and LSE = -inf.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "common/block_reduce.cuh"
#include "common/dispatch.cuh"
#include "common/error.hpp"
#include "common/kernel_shape.cuh"
#include "common/launch.cuh"
#include "common/ptx/exp2.cuh"
#include "common/ptx/vector_store.cuh"
#include "common/stage.hpp"
#include "common/vector.cuh"

namespace al::softmax {

struct Maximum {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
};

// Entries of row `row` that the mask leaves.
__device__ inline int visible_entries(const KernelShape& shape, unsigned row) {
  if (!shape.causal) return shape.Nkv;  // spares the division
  return max(shape.visible_keys(static_cast<int>(row % shape.Nq)), 0);
}

// Rung 1.
// [snippet tree]
// All threads get op over the x of all of them: half of the threads take in the other half, then
// a quarter the next, …, log2(THREADS) barriers.
template <int THREADS, typename Op>
__device__ float tree_reduce(float (&smem)[THREADS], float x, Op op) {
  const int t = threadIdx.x;
  smem[t] = x;
  for (int half = THREADS / 2; half > 0; half /= 2) {
    __syncthreads();  // what the larger half of the tree left is complete
    if (t < half) smem[t] = op(smem[t], smem[t + half]);
  }
  __syncthreads();  // the root is complete
  const float result = smem[0];
  __syncthreads();  // everyone has it before the next reduction overwrites
  return result;
}
// [/snippet]

// [snippet three_pass]
template <typename S_t, typename P_t, int THREADS>
__global__ void __launch_bounds__(THREADS)
    softmax_three_pass(const S_t* S, P_t* P, float* LSE, int, KernelShape shape) {
  const unsigned row = blockIdx.x;
  const int visible = visible_entries(shape, row);
  const S_t* s = S + size_t(row) * shape.Nkv;  // [Nkv]
  P_t* p = P + size_t(row) * shape.Nkv;        // [Nkv]

  SharedArena shared;
  auto& tree = shared.take<float[THREADS]>("tree");

  float m = -INFINITY;
  for (int j = threadIdx.x; j < visible; j += THREADS) m = fmaxf(m, to_float(s[j]));
  m = tree_reduce(tree, m, Maximum());
  if (m == -INFINITY) m = 0;  // else -inf - -inf, which is NaN

  float l = 0;
  for (int j = threadIdx.x; j < visible; j += THREADS) l += expf(to_float(s[j]) - m);
  l = tree_reduce(tree, l, Sum());
  const float normalise = l == 0 ? 0 : 1 / l;

  for (int j = threadIdx.x; j < visible; j += THREADS) {
    p[j] = from_float<P_t>(expf(to_float(s[j]) - m) * normalise);
  }
  if (LSE && threadIdx.x == 0) LSE[row] = m + logf(l);
}
// [/snippet]

// --- 16 bytes at a time -------------------------------------------------------------------------

// 16 bytes of scores: 4 in fp32, 8 in fp16 and bf16.
template <typename S_t>
constexpr int kVector = 16 / sizeof(S_t);

// The same bytes widened to fp32.
template <typename S_t>
__device__ __forceinline__ void widen(uint4 raw, float (&x)[kVector<S_t>]) {
  const unsigned words[4] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    if constexpr (std::is_same_v<S_t, float>) {
      x[w] = __uint_as_float(words[w]);
    } else {
      float2 pair;
      if constexpr (std::is_same_v<S_t, __half>) {
        pair = __half22float2(reinterpret_cast<const __half2&>(words[w]));
      } else {
        pair = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(words[w]));
      }
      x[2 * w] = pair.x;
      x[2 * w + 1] = pair.y;
    }
  }
}

// 16 bytes that are all -inf: what stands for scores outside the row.
template <typename S_t>
__device__ __forceinline__ uint4 minus_infinities() {
  constexpr unsigned word = std::is_same_v<S_t, float>    ? 0xff800000u
                            : std::is_same_v<S_t, __half> ? 0xfc00fc00u
                                                          : 0xff80ff80u;
  return make_uint4(word, word, word, word);
}

template <typename P_t>
__device__ __forceinline__ unsigned pack(float a, float b) {
  if constexpr (std::is_same_v<P_t, __half>) {
    const __half2 pair = __floats2half2_rn(a, b);
    return reinterpret_cast<const unsigned&>(pair);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(a, b);
    return reinterpret_cast<const unsigned&>(pair);
  }
}

// N probabilities narrowed, in one store: 16 bytes, or 8 where fp32 scores become fp16 or bf16.
template <Store STORE, typename P_t, int N>
__device__ __forceinline__ void store_narrowed(P_t* to, const float (&x)[N]) {
  if constexpr (std::is_same_v<P_t, float>) {
    static_assert(N == 4);
    store_vector<STORE>(to, make_uint4(__float_as_uint(x[0]), __float_as_uint(x[1]),
                                       __float_as_uint(x[2]), __float_as_uint(x[3])));
  } else if constexpr (N == 4) {
    store_vector<STORE>(to, make_uint2(pack<P_t>(x[0], x[1]), pack<P_t>(x[2], x[3])));
  } else {
    static_assert(N == 8);
    store_vector<STORE>(to, make_uint4(pack<P_t>(x[0], x[1]), pack<P_t>(x[2], x[3]),
                                       pack<P_t>(x[4], x[5]), pack<P_t>(x[6], x[7])));
  }
}

// [snippet row]
// A row as vector loads see it. Its first entry may lie anywhere between two 16-byte boundaries:
//
// clang-format off
//         |         h h h | v v v v v v v v | v v v v v v v v | t t . . . . . . |
//                   head    body: `vectors` whole vectors       tail   masked
// clang-format on
//
// Threads 2·VEC at the least share a row. Each has its vectors of the body, and the first 2·VEC
// have one entry more: VEC of them one of the head, VEC one of the tail, where there are so many.
template <int VEC>
struct Row {
  size_t first;  // entry of S and P where the row begins
  int visible, head, vectors;

  __device__ Row(const KernelShape& shape, unsigned row)
      : first(size_t(row) * shape.Nkv), visible(visible_entries(shape, row)) {
    head = min(static_cast<int>((VEC - first % VEC) % VEC), visible);
    vectors = (visible - head) / VEC;
  }
  __device__ size_t body() const { return first + head; }
  // The column of thread t's single entry; -1: it has none.
  __device__ int single(int t) const {
    const int tail = (visible - head) % VEC;
    if (t < VEC) return t < head ? t : -1;
    return t - VEC < tail ? visible - tail + t - VEC : -1;
  }
};
// [/snippet]

// Asks for N vectors of the body: v, v + THREADS, …; past its end, -inf. None is used here, so all
// of them, and what the caller asks for besides, are on their way at once.
template <int THREADS, typename S_t, int N>
__device__ __forceinline__ void load_vectors(uint4 (&raw)[N], const S_t* body, int v, int vectors) {
#pragma unroll
  for (int n = 0; n < N; ++n, v += THREADS) {
    raw[n] = minus_infinities<S_t>();
    if (v < vectors) raw[n] = *reinterpret_cast<const uint4*>(body + v * kVector<S_t>);
  }
}

template <typename S_t, int N>
__device__ __forceinline__ void widen(const uint4 (&raw)[N], float (&x)[N][kVector<S_t>]) {
#pragma unroll
  for (int n = 0; n < N; ++n) widen<S_t>(raw[n], x[n]);
}

// [snippet log2]
// exp(s - max) is 2^(s·log2(e) - m) with m = max·log2(e): one multiply-add and one ex2. From here
// on m is kept in this unit. That m is rounded does no harm, for all terms and their sum refer to
// the same m. A product s·log2(e) rounded on its own would: hence fmaf, not * and -.
constexpr float kLog2e = 1.44269504088896340736f, kLn2 = 0.69314718055994530942f;

__device__ __forceinline__ float power(float s, float m) { return fast_exp2(fmaf(s, kLog2e, -m)); }

// What to subtract from a row whose maximum is m: with nothing but -inf in it, 0 instead of m, and
// 2^(-inf - 0) is 0, where 2^(-inf - -inf) would be NaN.
__device__ __forceinline__ float finite(float m) { return m == -INFINITY ? 0.0f : m; }
// [/snippet]

// --- rung 2 -------------------------------------------------------------------------------------

// The tile of a block: BLOCK_M rows of up to BLOCK_N columns, THREADS / BLOCK_M threads to a row,
// which is one warp, or the whole block.
template <typename S_t, int BLOCK_M, int BLOCK_N, int THREADS>
struct OnePassTile {
  static constexpr int ROW_THREADS = THREADS / BLOCK_M;
  static constexpr int VECTORS = BLOCK_N / (ROW_THREADS * kVector<S_t>);  // a thread
  // 32 entries a thread take some 56 registers: 1024 threads on an SM, and these loads of theirs on
  // their way: 64 KiB of fp16.
  static constexpr int SM_THREADS = 32 * 1024 / std::max(32, BLOCK_N / ROW_THREADS);
  static constexpr int BLOCKS_PER_SM = std::max(1, SM_THREADS / THREADS);
  static_assert(BLOCK_M == 1 || ROW_THREADS == 32);
  static_assert(VECTORS * ROW_THREADS * kVector<S_t> == BLOCK_N);
};

// [snippet reduce]
// op over the x of the threads that share a row, known to all of them: five shuffles in a warp …
template <typename Op>
__device__ float warp_reduce(float x, Op op) {
  for (int lanes = 16; lanes > 0; lanes /= 2) x = op(x, __shfl_xor_sync(0xffffffff, x, lanes));
  return x;
}

// … and in a block CUB's reduction, whose result thread 0 hands to the others.
template <typename T, int THREADS>
struct BlockStorage {
  typename cub::BlockReduce<T, THREADS>::TempStorage reduction;
  T result;
};

template <int THREADS, typename T, typename Op>
__device__ T block_reduce(BlockStorage<T, THREADS>& storage, T x, Op op) {
  x = cub::BlockReduce<T, THREADS>(storage.reduction).Reduce(x, op);
  if (threadIdx.x == 0) storage.result = x;
  __syncthreads();  // the result is there; and nobody reads storage.reduction any more
  return storage.result;
}
// [/snippet]

// [snippet one_pass]
template <typename S_t, typename P_t, int BLOCK_M, int BLOCK_N, int THREADS, Store STORE>
__global__ void __launch_bounds__(THREADS,
                                  (OnePassTile<S_t, BLOCK_M, BLOCK_N, THREADS>::BLOCKS_PER_SM))
    softmax_one_pass(const S_t* S, P_t* P, float* LSE, int rows, KernelShape shape) {
  using Tile = OnePassTile<S_t, BLOCK_M, BLOCK_N, THREADS>;
  constexpr int VEC = kVector<S_t>, ROW_THREADS = Tile::ROW_THREADS;
  const int t = threadIdx.x % ROW_THREADS;  // within the row
  const unsigned r = blockIdx.x * BLOCK_M + threadIdx.x / ROW_THREADS;
  if (BLOCK_M > 1 && r >= static_cast<unsigned>(rows)) return;  // the whole warp; no barrier below
  const Row<VEC> row(shape, r);

  SharedArena shared;  // two, so that the second reduction need not wait for readers of the first
  using Storage = BlockStorage<float, THREADS>;
  Storage* storage[2] = {};
  if constexpr (BLOCK_M == 1) {
    storage[0] = &shared.take<Storage>("maximum");
    storage[1] = &shared.take<Storage>("sum");
  }
  const auto reduce = [&](int which, float x, auto op) {
    if constexpr (BLOCK_M == 1) return block_reduce(*storage[which], x, op);
    return warp_reduce(x, op);
  };

  // The one read: VECTORS vectors a thread, and perhaps an entry of the head or the tail.
  uint4 raw[Tile::VECTORS];
  load_vectors<ROW_THREADS>(raw, S + row.body(), t, row.vectors);
  const int j = row.single(t);
  float single = j >= 0 ? to_float(S[row.first + j]) : -INFINITY;
  float x[Tile::VECTORS][VEC];
  widen<S_t>(raw, x);

  // m, the maximum
  float m = single;
#pragma unroll
  for (int n = 0; n < Tile::VECTORS; ++n) {
#pragma unroll
    for (int e = 0; e < VEC; ++e) m = fmaxf(m, x[n][e]);
  }
  m = finite(reduce(0, m, Maximum()) * kLog2e);

  // l, the sum; the scores turn into powers where they are
  single = power(single, m);
  float l = single;
#pragma unroll
  for (int n = 0; n < Tile::VECTORS; ++n) {
#pragma unroll
    for (int e = 0; e < VEC; ++e) l += x[n][e] = power(x[n][e], m);
  }
  l = reduce(1, l, Sum());
  const float normalise = l == 0 ? 0.0f : __fdividef(1.0f, l);

  // The one write.
#pragma unroll
  for (int n = 0; n < Tile::VECTORS; ++n) {
    const int v = t + n * ROW_THREADS;
    if (v >= row.vectors) break;
#pragma unroll
    for (int e = 0; e < VEC; ++e) x[n][e] *= normalise;
    store_narrowed<STORE>(P + row.body() + v * VEC, x[n]);
  }
  if (j >= 0) P[row.first + j] = from_float<P_t>(single * normalise);
  if (LSE && t == 0) LSE[r] = kLn2 * (m + log2f(l));
}
// [/snippet]

// --- rung 3 -------------------------------------------------------------------------------------

// [snippet merge]
// All that a part of a row has to tell about itself: its maximum m (times log2(e)), and the sum l
// of its 2^(s·log2(e) - m). Nothing seen yet: {-inf, 0}.
struct Statistics {
  float m, l;
};

// Of two parts: the sum of the one with the smaller maximum shrinks.
struct Merge {
  __device__ Statistics operator()(Statistics a, Statistics b) const {
    const float m = fmaxf(a.m, b.m);
    return {m, a.l * fast_exp2(a.m - finite(m)) + b.l * fast_exp2(b.m - finite(m))};
  }
};

// Of a part and N x VEC further scores, which need their new maximum before the first exp.
template <int N, int VEC>
__device__ __forceinline__ Statistics take_in(Statistics seen, const float (&x)[N][VEC]) {
  float m = -INFINITY;
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < VEC; ++e) m = fmaxf(m, x[n][e]);
  }
  m = fmaxf(seen.m, m * kLog2e);
  const float reference = finite(m);
  float l = seen.l * fast_exp2(seen.m - reference);
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int e = 0; e < VEC; ++e) l += power(x[n][e], reference);
  }
  return {m, l};
}
// [/snippet]

// [snippet online]
// CHUNK vectors a thread are on their way at once.
template <typename S_t, typename P_t, int THREADS, int CHUNK>
__global__ void __launch_bounds__(THREADS)
    softmax_online(const S_t* S, P_t* P, float* LSE, int, KernelShape shape) {
  constexpr int VEC = kVector<S_t>, STEP = CHUNK * THREADS;  // vectors
  const int t = threadIdx.x;
  const Row<VEC> row(shape, blockIdx.x);
  const S_t* s = S + row.body();
  P_t* p = P + row.body();

  SharedArena shared;
  auto& storage = shared.take<BlockStorage<Statistics, THREADS>>("statistics");

  // Pass 1: maximum and sum together.
  const int j = row.single(t);
  const float single[1][1] = {{j >= 0 ? to_float(S[row.first + j]) : -INFINITY}};
  Statistics seen = take_in({-INFINITY, 0}, single);
  for (int v0 = 0; v0 < row.vectors; v0 += STEP) {
    uint4 raw[CHUNK];
    load_vectors<THREADS>(raw, s, v0 + t, row.vectors);
    float x[CHUNK][VEC];
    widen<S_t>(raw, x);
    seen = take_in(seen, x);
  }
  const auto [maximum, l] = block_reduce<THREADS>(storage, seen, Merge());
  const float m = finite(maximum), normalise = l == 0 ? 0.0f : __fdividef(1.0f, l);

  // Pass 2 goes backwards: what was read last is still in a cache.
  for (int v0 = (row.vectors - 1) / STEP * STEP; v0 >= 0; v0 -= STEP) {
    uint4 raw[CHUNK];
    load_vectors<THREADS>(raw, s, v0 + t, row.vectors);
    float x[CHUNK][VEC];
    widen<S_t>(raw, x);
#pragma unroll
    for (int n = 0; n < CHUNK; ++n) {
      const int v = v0 + t + n * THREADS;
      if (v >= row.vectors) break;
#pragma unroll
      for (int e = 0; e < VEC; ++e) x[n][e] = power(x[n][e], m) * normalise;
      store_narrowed<Store::plain>(p + v * VEC, x[n]);
    }
  }
  if (j >= 0) P[row.first + j] = from_float<P_t>(power(single[0][0], m) * normalise);
  if (LSE && t == 0) LSE[blockIdx.x] = kLn2 * (m + log2f(l));
}
// [/snippet]

// --- launchers ----------------------------------------------------------------------------------

// Starts a block for every `block_m` rows. `kernel` is any of the three above.
template <typename S_t, typename P_t>
void launch_rows(const char* name, void (*kernel)(const S_t*, P_t*, float*, int, KernelShape),
                 int block_m, int threads, std::size_t shared_bytes, const Problem& p,
                 const Arguments& a, Stream stream) {
  const auto address =
      reinterpret_cast<std::uintptr_t>(a.s) | reinterpret_cast<std::uintptr_t>(a.out);
  if (address % 16 != 0) throw usage_error("S and P must start at a multiple of 16 bytes.");
  const int rows = static_cast<int>(p.q_rows());
  launch(kernel,
         {.name = name,
          .grid = dim3(ceil_div(rows, block_m)),
          .block = dim3(threads),
          .shared_bytes = shared_bytes,
          .stream = stream},
         static_cast<const S_t*>(a.s), static_cast<P_t*>(a.out), a.lse, rows, KernelShape(p));
}

// Calls f(S_t{}, P_t{}) with the types of S and P.
template <typename F>
void dispatch_scores(const Problem& p, F&& f) {
  dispatch(p.dtype, [&]<typename P_t>(P_t) {
    if (p.score_dtype() == DType::fp32) {
      f(float{}, P_t{});
    } else {
      f(P_t{}, P_t{});
    }
  });
}

inline void launch_three_pass(const Problem& p, const Arguments& a, Stream stream) {
  constexpr int THREADS = 256;
  dispatch_scores(p, [&]<typename S_t, typename P_t>(S_t, P_t) {
    launch_rows<S_t, P_t>("softmax_three_pass", softmax_three_pass<S_t, P_t, THREADS>, 1, THREADS,
                          shared_bytes<float[THREADS]>(), p, a, stream);
  });
}

template <int THREADS>
void launch_online_with(const Problem& p, const Arguments& a, Stream stream) {
  constexpr int CHUNK = 4;  // 64 bytes a thread
  dispatch_scores(p, [&]<typename S_t, typename P_t>(S_t, P_t) {
    launch_rows<S_t, P_t>("softmax_online", softmax_online<S_t, P_t, THREADS, CHUNK>, 1, THREADS,
                          shared_bytes<BlockStorage<Statistics, THREADS>>(), p, a, stream);
  });
}

// A block is as large as the row can keep busy: with 32 threads, one chunk of all of them is 1024
// entries of fp16.
inline void launch_online(const Problem& p, const Arguments& a, Stream stream) {
  if (p.kv_seq <= 1024) return launch_online_with<32>(p, a, stream);
  if (p.kv_seq <= 8192) return launch_online_with<128>(p, a, stream);
  return launch_online_with<512>(p, a, stream);
}

// Rows must not be longer than BLOCK_N.
template <int BLOCK_M, int BLOCK_N, int THREADS, Store STORE = Store::plain>
void launch_one_pass_tile(const Problem& p, const Arguments& a, Stream stream) {
  constexpr std::size_t shared =
      BLOCK_M > 1 ? 0 : shared_bytes<BlockStorage<float, THREADS>, BlockStorage<float, THREADS>>();
  dispatch_scores(p, [&]<typename S_t, typename P_t>(S_t, P_t) {
    launch_rows<S_t, P_t>("softmax_one_pass",
                          softmax_one_pass<S_t, P_t, BLOCK_M, BLOCK_N, THREADS, STORE>, BLOCK_M,
                          THREADS, shared, p, a, stream);
  });
}

// [snippet choose]
// 16 or 32 entries a thread: 32 to 64 KiB of fp16 on their way with 1024 threads on an SM.
constexpr int kLongestRowInRegisters = 16384;

inline void launch_one_pass(const Problem& p, const Arguments& a, Stream stream) {
  const int N = p.kv_seq;
  if (N <= 256) return launch_one_pass_tile<4, 256, 128>(p, a, stream);  // a warp a row
  if (N <= 1024) return launch_one_pass_tile<1, 1024, 64>(p, a, stream);
  if (N <= 2048) return launch_one_pass_tile<1, 2048, 64>(p, a, stream);
  if (N <= 4096) return launch_one_pass_tile<1, 4096, 256>(p, a, stream);
  if (N <= 8192) return launch_one_pass_tile<1, 8192, 256>(p, a, stream);
  if (N <= kLongestRowInRegisters) return launch_one_pass_tile<1, 16384, 512>(p, a, stream);
  return launch_online(p, a, stream);  // rung 3: too long for one pass
}
// [/snippet]

}  // namespace al::softmax
