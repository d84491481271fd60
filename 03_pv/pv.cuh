// O = P V on the CUDA cores, in three rungs.
//
//   coalesced       one thread an output; neighbouring threads take neighbouring columns of V
//   shared_tiles    a 32 x 32 tile a block; P and V are staged in shared memory and used 32 times
//   register_tiles  up to 128 x 64 a block, 8 x 8 outputs a thread; the next tiles are on
//                   their way (cp.async) while these are multiplied
//
// All three multiply and add in fp32 whatever the inputs' type.
//
//   P [B·Hq, Nq, Nkv]   V [B·Hkv, Nkv, D]   O [B·Hq, Nq, D]
//
// Entries of P that the causal mask hides are never read: nobody wrote them. Nor is a hidden key's
// V ever multiplied, not even by zero, for 0 · NaN is NaN.
#pragma once

#include <type_traits>

#include "common/dispatch.cuh"
#include "common/kernel_shape.cuh"
#include "common/launch.cuh"
#include "common/ptx/cp_async.cuh"
#include "common/ptx/threads_per_sm.cuh"
#include "common/stage.hpp"
#include "common/vector.cuh"

namespace al::pv {

// The tile of O that a block computes. Blocks start in the order of their index, so the last rows
// of a head, which see the most keys when causal, come first: short blocks fill the end.
struct OutputTile {
  int bh;          // query head, counted over the batch
  int row0, col0;  // first query and first column of V
};

__device__ inline OutputTile output_tile(const KernelShape& shape, int block_m, int block_n) {
  const int tiles_m = ceil_div(shape.Nq, block_m), tiles_n = ceil_div(shape.D, block_n);
  const int tile = blockIdx.x;
  return {.bh = tile / (tiles_m * tiles_n),
          .row0 = (tiles_m - 1 - tile / tiles_n % tiles_m) * block_m,
          .col0 = tile % tiles_n * block_n};
}

// Rung 1.
// [snippet coalesced]
template <typename T, int BLOCK_M, int BLOCK_N>
__global__ void pv_coalesced(const T* P, const T* V, T* O, KernelShape shape) {
  const auto [bh, row0, col0] = output_tile(shape, BLOCK_M, BLOCK_N);
  const int i = row0 + threadIdx.y;  // query: the same in the whole warp
  const int d = col0 + threadIdx.x;  // column of V: differs from lane to lane
  if (i >= shape.Nq || d >= shape.D) return;

  const T* p = P + (size_t(bh) * shape.Nq + i) * shape.Nkv;
  const T* V_head = V + size_t(shape.kv_head(bh)) * shape.Nkv * shape.D;  // [Nkv, D]
  const int visible = shape.visible_keys(i);

  float sum = 0;
  for (int j = 0; j < visible; ++j) sum += to_float(p[j]) * to_float(V_head[j * shape.D + d]);
  O[(size_t(bh) * shape.Nq + i) * shape.D + d] = from_float<T>(sum);
}
// [/snippet]

// Rung 2. TILE x TILE outputs a block, one a thread; the keys are walked in chunks of TILE. As many
// blocks of 1024 threads as an SM holds (two, on most): one computes while the other waits at a
// barrier.
// [snippet shared_tiles]
template <typename T, int TILE>
__global__ void __launch_bounds__(TILE* TILE, kThreadsPerSM / (TILE * TILE))
    pv_shared_tiles(const T* P, const T* V, T* O, KernelShape shape) {
  const auto [bh, row0, col0] = output_tile(shape, TILE, TILE);
  const int tx = threadIdx.x, ty = threadIdx.y;
  const int i = row0 + ty, d = col0 + tx;

  const T* p = P + (size_t(bh) * shape.Nq + i) * shape.Nkv;               // [Nkv], row i
  const T* V_head = V + size_t(shape.kv_head(bh)) * shape.Nkv * shape.D;  // [Nkv, D]
  const int visible = i < shape.Nq ? shape.visible_keys(i) : 0;
  // The tile's last row sees the most keys. Chunks beyond are all masked.
  const int keys = shape.visible_keys(min(row0 + TILE, shape.Nq) - 1);

  SharedArena shared;
  auto& P_smem = shared.take<float[TILE][TILE]>("P_smem");
  auto& V_smem = shared.take<float[TILE][TILE]>("V_smem");

  float sum = 0;
  for (int k0 = 0; k0 < keys; k0 += TILE) {
    // Load P and V [TILE, TILE]. What is masked or outside is not read.
    P_smem[ty][tx] = k0 + tx < visible ? to_float(p[k0 + tx]) : 0.0f;
    const bool inside = k0 + ty < shape.Nkv && d < shape.D;
    V_smem[ty][tx] = inside ? to_float(V_head[(k0 + ty) * shape.D + d]) : 0.0f;
    __syncthreads();  // the tiles are complete before anyone reads them

    if (k0 + TILE <= visible) {
#pragma unroll
      for (int c = 0; c < TILE; ++c) sum += P_smem[ty][c] * V_smem[c][tx];
    } else {
#pragma unroll 1
      for (int c = 0; c < visible - k0; ++c) sum += P_smem[ty][c] * V_smem[c][tx];
    }
    __syncthreads();  // everyone is done reading before the next chunk overwrites the tiles
  }

  if (i < shape.Nq && d < shape.D) {
    O[(size_t(bh) * shape.Nq + i) * shape.D + d] = from_float<T>(sum);
  }
}
// [/snippet]

// Rung 3. BLOCK_M x BLOCK_N outputs a block, TM x TN a thread; the keys are walked in chunks of
// BLOCK_K, two of which have room in shared memory: one is multiplied while the next arrives.
//
// clang-format off
//                    tx: 0     1  …  7                   one warp: 32 threads as 4 x 8;
//   ty 0  lanes      0     2  …  14                      lane = ty % 2 + 2·tx + 16·(ty / 2)
//   ty 1             1     3  …  15
//   ty 2            16    18  …  30
//   ty 3            17    19  …  31
// clang-format on
//
// Thread (ty, tx) owns rows ty, ty + THREADS_M, … and the columns of every THREADS_N-th float4
// from 4·tx on. It reads four keys of a row of P with one 16-byte load, four columns of a row of V
// with another: both matrices lie in shared memory as they lie in memory, nothing is transposed.
// Lanes are dealt in pairs, as in chapter 01, so that each load takes two passes and not four.
//
// A row of P is padded by 4 words, or rows would lie BLOCK_K apart: the same banks.
// [snippet tile]
template <typename T, int BLOCK_M, int BLOCK_N, int BLOCK_K, int TM, int TN>
struct PVTile {
  static constexpr int THREADS_M = BLOCK_M / TM, THREADS_N = BLOCK_N / TN;
  static constexpr int THREADS = THREADS_M * THREADS_N;
  static_assert(THREADS_M % 2 == 0, "lanes are dealt in pairs of rows");
  static_assert(TN % 4 == 0, "columns are owned four at a time");
  // 384 threads an SM leave each 168 registers: 64 outputs, 32 of P, and as many again so that the
  // next loads are on their way while these are multiplied. With 512 threads, and 128 registers,
  // there is no room for that, and the kernel took 12 % longer.
  static constexpr int SM_THREADS = TM * TN < 64 ? 512 : TM * TN == 64 ? 384 : 256;
  static constexpr int BLOCKS_PER_SM = THREADS < SM_THREADS ? SM_THREADS / THREADS : 1;
  using P_tile = float[BLOCK_M][BLOCK_K + 4];
  using V_tile = float[BLOCK_K][BLOCK_N];
  // Copies bring fp16 and bf16 as they are; they are widened later. fp32 needs no such place.
  static constexpr bool WIDEN = !std::is_same_v<T, float>;
  using P_narrow = T[BLOCK_M][BLOCK_K];
  using V_narrow = T[BLOCK_K][BLOCK_N];

  static constexpr std::size_t shared() {
    return shared_bytes<P_tile[2], V_tile[2]>() +
           (WIDEN ? shared_bytes<P_narrow, V_narrow>() : std::size_t{0});
  }
};
// [/snippet]

// A tile of ROWS x COLUMNS is copied and widened four elements at a time. f(r, c) for the elements
// c … c + 3 of row r that are this thread's: the same ones each time, so that a thread widens what
// it copied itself, and needs no barrier in between.
template <int ROWS, int COLUMNS, int THREADS, int UNROLL = ROWS, typename F>
__device__ __forceinline__ void for_my_vectors(F&& f) {
  constexpr int VECTORS = COLUMNS / 4;  // a row
  constexpr int ROWS_AT_ONCE = THREADS / VECTORS;
  static_assert(THREADS % VECTORS == 0 && ROWS % ROWS_AT_ONCE == 0);
  const int r = threadIdx.x / VECTORS, c = threadIdx.x % VECTORS * 4;
#pragma unroll UNROLL
  for (int r0 = 0; r0 < ROWS; r0 += ROWS_AT_ONCE) f(r0 + r, c);
}

// [snippet copy]
// Starts to copy the first `count` of four elements; the rest become zero.
template <typename T>
__device__ __forceinline__ void copy4(T* smem, const T* gmem, int count = 4) {
  if constexpr (sizeof(T) == 4) {
    cp_async_16(smem, gmem, count * 4);
  } else {
    cp_async_8(smem, gmem, count * 2);
  }
}

// The same from any address, on the spot: cp.async would refuse most of them.
template <typename T>
__device__ __forceinline__ void copy4_unaligned(T* smem, const T* gmem, int count) {
#pragma unroll
  for (int x = 0; x < 4; ++x) smem[x] = x < count ? gmem[x] : T(0.0f);
}

// Starts to copy a chunk of P [BLOCK_M, BLOCK_K]. `whole`: all rows exist and see all its keys.
// Else only what a row sees is read: the tile's first row `seen` keys and, when causal, each row
// one more; the last of the `rows` stands in for those past the end. Rows of P begin anywhere when
// Nkv is no multiple of 4. Not unrolled where it is seldom run: that would cost registers always.
template <int BLOCK_M, int BLOCK_K, int THREADS, int WIDTH, typename T>
__device__ __forceinline__ void copy_P(T (&smem)[BLOCK_M][WIDTH], const T* P, bool whole, int seen,
                                       int rows, const KernelShape& shape) {
  const bool aligned = shape.Nkv % 4 == 0;
  if (whole && aligned) {
    for_my_vectors<BLOCK_M, BLOCK_K, THREADS>(
        [&](int r, int c) { copy4(&smem[r][c], P + (r * shape.Nkv + c)); });
  } else {
    for_my_vectors<BLOCK_M, BLOCK_K, THREADS, 1>([&](int r, int c) {
      const int row = min(r, rows - 1);
      const int count = max(0, min(4, seen + (shape.causal ? row : 0) - c));
      const T* from = P + (row * shape.Nkv + c);
      aligned ? copy4(&smem[r][c], from, count) : copy4_unaligned(&smem[r][c], from, count);
    });
  }
}

// Starts to copy a chunk of V [BLOCK_K, BLOCK_N], `keys` rows of it; the rest become zero.
template <int BLOCK_K, int BLOCK_N, int THREADS, typename T>
__device__ __forceinline__ void copy_V(T (&smem)[BLOCK_K][BLOCK_N], const T* V, bool whole,
                                       int keys, const KernelShape& shape) {
  if (whole) {
    for_my_vectors<BLOCK_K, BLOCK_N, THREADS>(
        [&](int r, int c) { copy4(&smem[r][c], V + (r * shape.D + c)); });
  } else {
    for_my_vectors<BLOCK_K, BLOCK_N, THREADS, 1>([&](int r, int c) {
      copy4(&smem[r][c], V + (min(r, keys - 1) * shape.D + c), r < keys ? 4 : 0);
    });
  }
}
// [/snippet]

// [snippet multiply]
// O += P V for one chunk. With MASKED, row m of this thread sees the chunk's first
// `visible + m · visible_step` keys only, and the others are not multiplied at all.
template <bool MASKED, typename Tile, int TM, int TN, int BLOCK_K>
__device__ __forceinline__ void multiply(float (&O_rmem)[TM][TN],
                                         const typename Tile::P_tile& P_smem,
                                         const float (&V_smem)[BLOCK_K][Tile::THREADS_N * TN],
                                         int ty, int tx, int visible, int visible_step) {
#pragma unroll(MASKED ? 1 : 4)
  for (int k = 0; k < BLOCK_K; k += 4) {
    float4 p[TM];  // four keys of this thread's rows
#pragma unroll
    for (int m = 0; m < TM; ++m) p[m] = load4(&P_smem[ty + m * Tile::THREADS_M][k]);

    const auto multiply_key = [&](int key, float float4::*of_key) {
#pragma unroll
      for (int n = 0; n < TN; n += 4) {
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
// [/snippet]

// [snippet register_tiles]
template <typename T, int BLOCK_M, int BLOCK_N, int BLOCK_K, int TM, int TN>
__global__ void __launch_bounds__(PVTile<T, BLOCK_M, BLOCK_N, BLOCK_K, TM, TN>::THREADS,
                                  PVTile<T, BLOCK_M, BLOCK_N, BLOCK_K, TM, TN>::BLOCKS_PER_SM)
    pv_register_tiles(const T* P, const T* V, T* O, KernelShape shape) {
  using Tile = PVTile<T, BLOCK_M, BLOCK_N, BLOCK_K, TM, TN>;
  const auto [bh, row0, col0] = output_tile(shape, BLOCK_M, BLOCK_N);
  const int tx = threadIdx.x / 2 % Tile::THREADS_N;
  const int ty = threadIdx.x % 2 + threadIdx.x / (2 * Tile::THREADS_N) * 2;

  // Both move on by a chunk with each copy.
  const T* P_next = P + (size_t(bh) * shape.Nq + row0) * shape.Nkv;              // [rows, Nkv]
  const T* V_next = V + size_t(shape.kv_head(bh)) * shape.Nkv * shape.D + col0;  // [Nkv, D]
  const int rows = min(BLOCK_M, shape.Nq - row0);

  SharedArena shared;
  auto& P_smem = shared.take<typename Tile::P_tile[2]>("P_smem");
  auto& V_smem = shared.take<typename Tile::V_tile[2]>("V_smem");

  // Keys not yet multiplied that the tile's first row sees; each row sees `one_more` than the row
  // before it, so the last one sees the most.
  int seen = shape.visible_keys(row0);
  const int one_more = shape.causal ? 1 : 0;
  const auto keys = [&] { return seen + one_more * (rows - 1); };

  // Starts to copy the chunk that is `ahead` keys ahead.
  const auto copy_chunk = [&](int ahead, auto& P_to, auto& V_to) {
    const bool whole = seen >= ahead + BLOCK_K && rows == BLOCK_M;
    copy_P<BLOCK_M, BLOCK_K, Tile::THREADS>(P_to, P_next, whole, seen - ahead, rows, shape);
    copy_V<BLOCK_K, BLOCK_N, Tile::THREADS>(V_to, V_next, whole, keys() - ahead, shape);
    cp_async_commit();
    P_next += BLOCK_K;
    V_next += BLOCK_K * shape.D;
  };

  float O_rmem[TM][TN] = {};
  // start_copy(ahead, b) copies a chunk that is meant for buffer b; widen(b) brings it there, in
  // fp32.
  const auto walk_keys = [&](auto start_copy, auto widen) {
    if (keys() > 0) start_copy(0, 0);
    for (int b = 0; keys() > 0; b ^= 1, seen -= BLOCK_K) {
      cp_async_wait<0>();  // this thread's part has landed
      widen(b);
      __syncthreads();  // chunk b is complete; everyone is done reading the one before
      if (keys() > BLOCK_K) start_copy(BLOCK_K, b ^ 1);

      if (seen >= BLOCK_K) {
        multiply<false, Tile, TM, TN>(O_rmem, P_smem[b], V_smem[b], ty, tx, 0, 0);
      } else {
        multiply<true, Tile, TM, TN>(O_rmem, P_smem[b], V_smem[b], ty, tx, seen + one_more * ty,
                                     one_more * Tile::THREADS_M);
      }
    }
  };
  if constexpr (Tile::WIDEN) {
    auto& P_narrow = shared.take<typename Tile::P_narrow>("P_narrow");
    auto& V_narrow = shared.take<typename Tile::V_narrow>("V_narrow");
    walk_keys([&](int ahead, int) { copy_chunk(ahead, P_narrow, V_narrow); },
              [&](int b) {
                for_my_vectors<BLOCK_M, BLOCK_K, Tile::THREADS>(
                    [&](int r, int c) { store4(&P_smem[b][r][c], load4(&P_narrow[r][c])); });
                for_my_vectors<BLOCK_K, BLOCK_N, Tile::THREADS>(
                    [&](int r, int c) { store4(&V_smem[b][r][c], load4(&V_narrow[r][c])); });
              });
  } else {
    walk_keys([&](int ahead, int b) { copy_chunk(ahead, P_smem[b], V_smem[b]); }, [](int) {});
  }

  T* O_head = O + size_t(bh) * shape.Nq * shape.D;  // [Nq, D]
#pragma unroll
  for (int m = 0; m < TM; ++m) {
    const int i = row0 + ty + m * Tile::THREADS_M;
    if (i >= shape.Nq) break;
#pragma unroll
    for (int n = 0; n < TN; n += 4) {
      const int d = col0 + 4 * tx + n * Tile::THREADS_N;
      store4(O_head + (i * shape.D + d),
             make_float4(O_rmem[m][n], O_rmem[m][n + 1], O_rmem[m][n + 2], O_rmem[m][n + 3]));
    }
  }
}
// [/snippet]

// Starts one block a tile. `kernel` is any of the three above for element type T.
template <typename T>
void launch_pv(const char* name, void (*kernel)(const T*, const T*, T*, KernelShape), int block_m,
               int block_n, dim3 block, std::size_t shared_bytes, const Problem& p,
               const Arguments& a, Stream stream) {
  const unsigned tiles =
      p.batch * p.heads * ceil_div(p.seq, block_m) * ceil_div(p.head_dim, block_n);
  launch(kernel,
         {.name = name,
          .grid = dim3(tiles),
          .block = block,
          .shared_bytes = shared_bytes,
          .stream = stream},
         static_cast<const T*>(a.p), static_cast<const T*>(a.v), static_cast<T*>(a.out),
         KernelShape(p));
}

inline void launch_pv_coalesced(const Problem& p, const Arguments& a, Stream stream) {
  constexpr int BLOCK_M = 8, BLOCK_N = 32;
  dispatch(p.dtype, [&]<typename T>(T) {
    launch_pv<T>("pv_coalesced", pv_coalesced<T, BLOCK_M, BLOCK_N>, BLOCK_M, BLOCK_N,
                 dim3(BLOCK_N, BLOCK_M), 0, p, a, stream);
  });
}

inline void launch_pv_shared_tiles(const Problem& p, const Arguments& a, Stream stream) {
  constexpr int TILE = 32;
  dispatch(p.dtype, [&]<typename T>(T) {
    launch_pv<T>("pv_shared_tiles", pv_shared_tiles<T, TILE>, TILE, TILE, dim3(TILE, TILE),
                 shared_bytes<float[TILE][TILE], float[TILE][TILE]>(), p, a, stream);
  });
}

// BLOCK_N must divide D; one head's V, and BLOCK_M rows of P, must stay below 2^31 elements.
template <int BLOCK_M, int BLOCK_N, int BLOCK_K, int TM, int TN>
void launch_pv_register_tiles(const Problem& p, const Arguments& a, Stream stream) {
  dispatch(p.dtype, [&]<typename T>(T) {
    using Tile = PVTile<T, BLOCK_M, BLOCK_N, BLOCK_K, TM, TN>;
    launch_pv<T>("pv_register_tiles", pv_register_tiles<T, BLOCK_M, BLOCK_N, BLOCK_K, TM, TN>,
                 BLOCK_M, BLOCK_N, dim3(Tile::THREADS), Tile::shared(), p, a, stream);
  });
}

}  // namespace al::pv
