// S = scale * Q K^T on the CUDA cores, in four rungs.
//
//   uncoalesced     one thread a score; neighbouring threads take neighbouring *queries*
//   coalesced       one thread a score; neighbouring threads take neighbouring *keys*
//   shared_tiles    a 32 x 32 tile a block; Q and K are staged in shared memory and used 32 times
//   register_tiles  a 64 x 128 tile a block; each thread keeps 8 x 8 scores in registers
//
// All four multiply in fp32 whatever the inputs' type, and skip what the causal mask hides.
//
//   Q [B·Hq, Nq, D]   K [B·Hkv, Nkv, D]   S [B·Hq, Nq, Nkv] fp32
//
// Masked scores are not written where a whole tile is masked, and are meaningless elsewhere: the
// softmax of chapter 02 never reads them.
#pragma once

#include "common/dispatch.cuh"
#include "common/kernel_shape.cuh"
#include "common/launch.cuh"
#include "common/stage.hpp"
#include "common/vector.cuh"

namespace al::qk {

// [snippet dot]
// One score: the plain dot product both first rungs share.
template <typename T>
__device__ float dot(const T* q, const T* k, int D) {
  float sum = 0;
  for (int d = 0; d < D; ++d) sum += to_float(q[d]) * to_float(k[d]);
  return sum;
}
// [/snippet]

// The 2-D position of a block in the grid of one head. The grid is one-dimensional because that
// is the only dimension that may exceed 65535.
struct TilePosition {
  int bh;          // query head, counted over the batch
  int row0, col0;  // first query and first key of the tile
};

__device__ inline TilePosition tile_position(const KernelShape& shape, int block_m, int block_n) {
  const int tiles_m = ceil_div(shape.Nq, block_m), tiles_n = ceil_div(shape.Nkv, block_n);
  const int tile = blockIdx.x;
  return {.bh = tile / (tiles_m * tiles_n),
          .row0 = tile / tiles_n % tiles_m * block_m,
          .col0 = tile % tiles_n * block_n};
}

// Rung 1.
// [snippet uncoalesced]
template <typename T, int BLOCK_M, int BLOCK_N>
__global__ void qk_uncoalesced(const T* Q, const T* K, float* S, KernelShape shape) {
  const auto [bh, row0, col0] = tile_position(shape, BLOCK_M, BLOCK_N);
  const int i = row0 + threadIdx.x;  // query: differs from lane to lane
  const int j = col0 + threadIdx.y;  // key: the same in the whole warp
  if (i >= shape.Nq || j >= shape.Nkv || j >= shape.visible_keys(i)) return;

  const T* q = Q + (size_t(bh) * shape.Nq + i) * shape.D;
  const T* k = K + (size_t(shape.kv_head(bh)) * shape.Nkv + j) * shape.D;
  S[(size_t(bh) * shape.Nq + i) * shape.Nkv + j] = shape.scale * dot(q, k, shape.D);
}
// [/snippet]

// Rung 2. The only change: x and y have swapped roles, so the 32 lanes of a warp write 32
// neighbouring scores.
// [snippet coalesced]
template <typename T, int BLOCK_M, int BLOCK_N>
__global__ void qk_coalesced(const T* Q, const T* K, float* S, KernelShape shape) {
  const auto [bh, row0, col0] = tile_position(shape, BLOCK_M, BLOCK_N);
  const int i = row0 + threadIdx.y;  // query: the same in the whole warp
  const int j = col0 + threadIdx.x;  // key: differs from lane to lane
  if (i >= shape.Nq || j >= shape.Nkv || j >= shape.visible_keys(i)) return;

  const T* q = Q + (size_t(bh) * shape.Nq + i) * shape.D;
  const T* k = K + (size_t(shape.kv_head(bh)) * shape.Nkv + j) * shape.D;
  // [hole score]
  S[(size_t(bh) * shape.Nq + i) * shape.Nkv + j] = shape.scale * dot(q, k, shape.D);
  // [/hole]
}
// [/snippet]

// Rung 3. TILE x TILE scores a block, one a thread; D is walked in chunks of TILE. A block is 1024
// threads: at 32 registers each, two of them fit on an SM, and one computes while the other waits
// at a barrier.
// [snippet shared_tiles]
template <typename T, int TILE>
__global__ void __maxnreg__(32)
    qk_shared_tiles(const T* Q, const T* K, float* S, KernelShape shape) {
  const auto [bh, row0, col0] = tile_position(shape, TILE, TILE);
  if (col0 >= shape.visible_keys(min(row0 + TILE, shape.Nq) - 1)) return;  // all masked
  const int tx = threadIdx.x, ty = threadIdx.y;

  const T* Q_head = Q + size_t(bh) * shape.Nq * shape.D;                  // [Nq, D]
  const T* K_head = K + size_t(shape.kv_head(bh)) * shape.Nkv * shape.D;  // [Nkv, D]

  // One column of padding: the lanes of a warp read down a column of K_smem, and with a row of
  // TILE = 32 words all 32 would want the same bank.
  SharedArena shared;
  auto& Q_smem = shared.take<float[TILE][TILE]>("Q_smem");
  auto& K_smem = shared.take<float[TILE][TILE + 1]>("K_smem");

  float sum = 0;
  for (int d0 = 0; d0 < shape.D; d0 += TILE) {
    // Load Q and K [TILE, TILE]; neighbouring lanes take neighbouring d. Outside: zero.
    const int d = d0 + tx, i = row0 + ty, j = col0 + ty;
    const bool in_d = d < shape.D;
    Q_smem[ty][tx] = in_d && i < shape.Nq ? to_float(Q_head[i * shape.D + d]) : 0.0f;
    K_smem[ty][tx] = in_d && j < shape.Nkv ? to_float(K_head[j * shape.D + d]) : 0.0f;
    __syncthreads();  // the tiles are complete before anyone reads them

    for (int c = 0; c < TILE; ++c) sum += Q_smem[ty][c] * K_smem[tx][c];
    __syncthreads();  // everyone is done reading before the next chunk overwrites the tiles
  }

  const int i = row0 + ty, j = col0 + tx;
  if (i < shape.Nq && j < shape.Nkv) {
    S[(size_t(bh) * shape.Nq + i) * shape.Nkv + j] = shape.scale * sum;
  }
}
// [/snippet]

// [snippet register_tiles]
// Rung 4. BLOCK_M x BLOCK_N scores a block, TM x TN a thread, so that one float4 of Q and one of K
// from shared memory feed 4·TN or 4·TM multiply-adds instead of 4.
//
// clang-format off
//                    tx: 0     1     2  …  15                one warp: 32 threads as 2 x 16;
//   ty 0  lanes      0     2     4  …  30                    lane = 2·tx + ty % 2
//   ty 1             1     3     5  …  31
// clang-format on
//
// Thread (ty, tx) owns rows ty, ty + THREADS_M, … and columns tx, tx + THREADS_N, …, so that
// neighbours in tx store neighbouring scores. Lanes are dealt in pairs because of how a 16-byte
// load of shared memory is served: half a warp in one pass if lanes 2n and 2n + 1 (or n and n + 2
// of every four) want the same address, else a quarter. Dealt row by row, a load of K takes 4
// passes; in pairs, 2.
//
// A row of shared memory is padded to BLOCK_D + 4 words, which puts eight neighbouring rows 4 banks
// apart: eight float4 cover all 32 banks once.
template <typename T, int BLOCK_M, int BLOCK_N, int BLOCK_D, int TM, int TN>
struct QKTile {
  static constexpr int THREADS_M = BLOCK_M / TM, THREADS_N = BLOCK_N / TN;
  static constexpr int THREADS = THREADS_M * THREADS_N;
  static_assert(THREADS_M % 2 == 0, "lanes are dealt in pairs of rows");
  // 512 threads an SM leave each 128 registers: 64 scores, 32 of Q, and the rest for K and indices.
  // Left to itself the compiler takes 254, and half as many blocks hide half as well.
  static constexpr int BLOCKS_PER_SM = TM * TN <= 64 ? 512 / THREADS : 256 / THREADS;
  using Q_tile = float[BLOCK_M][BLOCK_D + 4];
  using K_tile = float[BLOCK_N][BLOCK_D + 4];
};

// Copies rows row0 … row0 + ROWS - 1, columns d0 … d0 + BLOCK_D - 1 of a [N, D] matrix to shared
// memory, widened to fp32. Rows past N become zero; their scores are never stored. Offsets inside
// one head's matrix are 32-bit: 64-bit ones cost two registers each, and here those would spill.
template <int ROWS, int BLOCK_D, int THREADS, typename T>
__device__ void load_tile(float (&smem)[ROWS][BLOCK_D + 4], const T* matrix, int row0, int d0,
                          int N, int D) {
  constexpr int VECTORS = BLOCK_D / 4;  // a row
  static_assert(ROWS * VECTORS % THREADS == 0 && THREADS % VECTORS == 0);
#pragma unroll
  for (int n = 0; n < ROWS * VECTORS / THREADS; ++n) {
    const int r = threadIdx.x / VECTORS + n * (THREADS / VECTORS);
    const int d = threadIdx.x % VECTORS * 4;
    float4 x = make_float4(0, 0, 0, 0);
    if (row0 + r < N) x = load4(matrix + ((row0 + r) * D + d0 + d));
    store4(&smem[r][d], x);
  }
}

template <typename T, int BLOCK_M, int BLOCK_N, int BLOCK_D, int TM, int TN>
__global__ void __launch_bounds__(QKTile<T, BLOCK_M, BLOCK_N, BLOCK_D, TM, TN>::THREADS,
                                  QKTile<T, BLOCK_M, BLOCK_N, BLOCK_D, TM, TN>::BLOCKS_PER_SM)
    qk_register_tiles(const T* Q, const T* K, float* S, KernelShape shape) {
  using Tile = QKTile<T, BLOCK_M, BLOCK_N, BLOCK_D, TM, TN>;
  const auto [bh, row0, col0] = tile_position(shape, BLOCK_M, BLOCK_N);
  if (col0 >= shape.visible_keys(min(row0 + BLOCK_M, shape.Nq) - 1)) return;  // all masked
  const int tx = threadIdx.x / 2 % Tile::THREADS_N;
  const int ty = threadIdx.x % 2 + threadIdx.x / (2 * Tile::THREADS_N) * 2;

  const T* Q_head = Q + size_t(bh) * shape.Nq * shape.D;                  // [Nq, D]
  const T* K_head = K + size_t(shape.kv_head(bh)) * shape.Nkv * shape.D;  // [Nkv, D]
  float* S_head = S + size_t(bh) * shape.Nq * shape.Nkv;                  // [Nq, Nkv]

  SharedArena shared;
  auto& Q_smem = shared.take<typename Tile::Q_tile>("Q_smem");
  auto& K_smem = shared.take<typename Tile::K_tile>("K_smem");

  float S_rmem[TM][TN] = {};
  for (int d0 = 0; d0 < shape.D; d0 += BLOCK_D) {
    if (d0 > 0) __syncthreads();  // everyone is done reading the chunk before
    load_tile<BLOCK_M, BLOCK_D, Tile::THREADS>(Q_smem, Q_head, row0, d0, shape.Nq, shape.D);
    load_tile<BLOCK_N, BLOCK_D, Tile::THREADS>(K_smem, K_head, col0, d0, shape.Nkv, shape.D);
    __syncthreads();  // the tiles are complete before anyone reads them

#pragma unroll 1  // 256 multiply-adds are body enough; unrolled further, registers spill
    for (int d = 0; d < BLOCK_D; d += 4) {
      float4 q[TM];  // four d of this thread's rows
#pragma unroll
      for (int m = 0; m < TM; ++m) q[m] = load4(&Q_smem[ty + m * Tile::THREADS_M][d]);
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

#pragma unroll
  for (int m = 0; m < TM; ++m) {
    const int i = row0 + ty + m * Tile::THREADS_M;
    if (i >= shape.Nq) break;
#pragma unroll
    for (int n = 0; n < TN; ++n) {
      const int j = col0 + tx + n * Tile::THREADS_N;
      if (j < shape.Nkv) S_head[size_t(i) * shape.Nkv + j] = shape.scale * S_rmem[m][n];
    }
  }
}
// [/snippet]

// Starts one block a tile. `kernel` is any of the four above for element type T.
template <typename T>
void launch_qk(const char* name, void (*kernel)(const T*, const T*, float*, KernelShape),
               int block_m, int block_n, dim3 block, std::size_t shared_bytes, const Problem& p,
               const Arguments& a, Stream stream) {
  const unsigned tiles = p.batch * p.heads * ceil_div(p.seq, block_m) * ceil_div(p.kv_seq, block_n);
  launch(kernel,
         {.name = name,
          .grid = dim3(tiles),
          .block = block,
          .shared_bytes = shared_bytes,
          .stream = stream},
         static_cast<const T*>(a.q), static_cast<const T*>(a.k), static_cast<float*>(a.out),
         KernelShape(p));
}

inline void launch_uncoalesced(const Problem& p, const Arguments& a, Stream stream) {
  constexpr int BLOCK_M = 32, BLOCK_N = 8;
  dispatch(p.dtype, [&]<typename T>(T) {
    launch_qk<T>("qk_uncoalesced", qk_uncoalesced<T, BLOCK_M, BLOCK_N>, BLOCK_M, BLOCK_N,
                 dim3(BLOCK_M, BLOCK_N), 0, p, a, stream);
  });
}

inline void launch_coalesced(const Problem& p, const Arguments& a, Stream stream) {
  constexpr int BLOCK_M = 8, BLOCK_N = 32;
  dispatch(p.dtype, [&]<typename T>(T) {
    launch_qk<T>("qk_coalesced", qk_coalesced<T, BLOCK_M, BLOCK_N>, BLOCK_M, BLOCK_N,
                 dim3(BLOCK_N, BLOCK_M), 0, p, a, stream);
  });
}

inline void launch_shared_tiles(const Problem& p, const Arguments& a, Stream stream) {
  constexpr int TILE = 32;
  dispatch(p.dtype, [&]<typename T>(T) {
    launch_qk<T>("qk_shared_tiles", qk_shared_tiles<T, TILE>, TILE, TILE, dim3(TILE, TILE),
                 shared_bytes<float[TILE][TILE], float[TILE][TILE + 1]>(), p, a, stream);
  });
}

// BLOCK_D must divide D, and one head's Q or K must stay below 2^31 elements.
template <int BLOCK_M, int BLOCK_N, int BLOCK_D, int TM, int TN>
void launch_register_tiles(const Problem& p, const Arguments& a, Stream stream) {
  dispatch(p.dtype, [&]<typename T>(T) {
    using Tile = QKTile<T, BLOCK_M, BLOCK_N, BLOCK_D, TM, TN>;
    launch_qk<T>("qk_register_tiles", qk_register_tiles<T, BLOCK_M, BLOCK_N, BLOCK_D, TM, TN>,
                 BLOCK_M, BLOCK_N, dim3(Tile::THREADS),
                 shared_bytes<typename Tile::Q_tile, typename Tile::K_tile>(), p, a, stream);
  });
}

}  // namespace al::qk
