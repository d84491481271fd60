// Attention on the tensor cores of any GPU that has mma.sync, with tiles of K and V on their way
// before they are needed. Three things can be switched, one at a time:
//
//   STAGES   1  a tile is asked for when it is needed, and waited for
//            2  the next tile is on its way while this one is multiplied
//            3  the next two are
//   WARPS    8  one block has an SM to itself: while it waits, nothing else runs there
//            4  two or three blocks share an SM: one computes while another waits
//   T        __half, __nv_bfloat16, or 8 bits: __nv_fp8_e4m3, __nv_fp8_e5m2
//
// Everything is counted in bytes: a step of the tensor cores takes 32 of a row, which is 16 numbers
// of 16 bits or 32 of 8, and the registers are dealt the same.
//
//   Q [B·Hq, Nq, D]   K [B·Hkv, Nkv, D]   O [B·Hq, Nq, D]   LSE [B·Hq, Nq] or nullptr
//   V [B·Hkv, Nkv, D] in 16 bits; in 8 bits V_tiles [B·Hkv, keys / 16, D, 16] (quantise.cuh)
#pragma once

#include <algorithm>
#include <cstdint>

#include "06_fp8_prefetch_v3/fragments.cuh"
#include "06_fp8_prefetch_v3/kernels.hpp"
#include "common/kernel_shape.cuh"
#include "common/launch.cuh"
#include "common/ptx/cp_async.cuh"
#include "common/ptx/ldmatrix.cuh"
#include "common/ptx/mma.cuh"
#include "common/ptx/widen.cuh"

namespace al::fp8 {

// A pointer to an array of shape [ROWS, BYTES a row] in shared memory, in chunks of 16 bytes. Rows
// that follow one another would begin in the same banks; so the chunks of a row change places, in
// another way for each of 8 rows, and the 8 rows that ldmatrix reads at once lie in all 32 banks.
// [snippet swizzle]
template <int BYTES>
__device__ __forceinline__ int swizzled(int row, int chunk) {
  constexpr int CHUNKS = BYTES / 16;                 // a row
  constexpr int ROWS = CHUNKS < 8 ? 8 / CHUNKS : 1;  // that share 128 bytes
  constexpr int MASK = (CHUNKS < 8 ? CHUNKS : 8) - 1;
  return row * BYTES + (chunk ^ (row / ROWS & MASK)) * 16;
}
// [/snippet]

// Starts to copy ROWS rows of BYTES from a matrix whose rows lie one behind another; from `rows` on
// they become zero.
template <int ROWS, int BYTES, int THREADS>
__device__ __forceinline__ void copy_rows(std::byte* smem, const std::byte* gmem, int rows) {
  constexpr int CHUNKS = BYTES / 16;
  static_assert(ROWS * CHUNKS % THREADS == 0);  // a loop of known length: no branch
#pragma unroll
  for (int i = 0; i < ROWS * CHUNKS / THREADS; ++i) {
    const int x = i * THREADS + threadIdx.x;
    const int row = x / CHUNKS, chunk = x % CHUNKS;
    const bool inside = row < rows;
    cp_async_16(smem + swizzled<BYTES>(row, chunk),
                gmem + (inside ? std::size_t(row) * BYTES + chunk * 16 : 0), inside ? 16 : 0);
  }
}

// d += a · b for one step of 32 bytes. `WIDEN`: 8 bits become fp16 on the way. What pairs with what
// is the same for a and b, so it does not matter which 16 of the 32 numbers come first.
// [snippet multiply]
template <typename T, bool WIDEN>
__device__ __forceinline__ void multiply(float (&d)[4], const std::uint32_t (&a)[4],
                                         const std::uint32_t (&b)[2]) {
  if constexpr (sizeof(T) == 2) {
    mma_m16n8k16<T>(d, a, b);
  } else if constexpr (!WIDEN) {
    mma_m16n8k32<T>(d, a, b);
  } else {
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      std::uint32_t wide_a[4], wide_b[2];
      widen<T>(a[2 * k], wide_a[0], wide_a[2]);
      widen<T>(a[2 * k + 1], wide_a[1], wide_a[3]);
      widen<T>(b[k], wide_b[0], wide_b[1]);
      mma_m16n8k16<__half>(d, wide_a, wide_b);
    }
  }
}
// [/snippet]

template <typename T, int D_, int STAGES, int WARPS>
struct MmaTile {
  static constexpr int D = D_, THREADS = 32 * WARPS;
  static constexpr int BLOCKS_PER_SM = WARPS == 8 ? 1 : D == 64 ? 3 : 2;  // what registers allow
  static constexpr int BLOCK_M = 16 * WARPS, BLOCK_N = D == 256 ? 32 : 64;
  static constexpr int ROW = D * sizeof(T);    // bytes of a row of Q or K
  static constexpr int TILE = BLOCK_N * ROW;   // bytes of a tile of K or V
  static constexpr int STEPS_D = ROW / 32;     // of Q Kᵀ
  static constexpr int KEYS = 32 / sizeof(T);  // keys in a step of P V
  static constexpr int STEPS_N = BLOCK_N / KEYS;
  using Q_tile = std::byte[BLOCK_M * ROW];
  using KV_tiles = std::byte[STAGES][TILE];
  static constexpr std::size_t shared() { return shared_bytes<Q_tile, KV_tiles, KV_tiles>(); }
  // More than half of what an SM has, where a block is to have it to itself: 130 registers a thread
  // keep a second one out, 128 would not.
  static std::size_t at_least() {
    return BLOCKS_PER_SM == 1 ? device().shared_per_block / 2 + 1024 : 0;
  }
};

// [snippet kernel]
template <typename T, int D, int STAGES, int WARPS, bool WIDEN>
__global__ void __launch_bounds__(MmaTile<T, D, STAGES, WARPS>::THREADS,
                                  MmaTile<T, D, STAGES, WARPS>::BLOCKS_PER_SM)
    attention_mma(const T* Q, const T* K, const T* V, void* O, DType out_dtype, float* LSE,
                  Scales scales, float shift, int key_groups, KernelShape shape) {
  using Tile = MmaTile<T, D, STAGES, WARPS>;
  constexpr int BLOCK_M = Tile::BLOCK_M, BLOCK_N = Tile::BLOCK_N, THREADS = Tile::THREADS;
  constexpr int ROW = Tile::ROW;
  // Blocks start in the order of their index: the last rows of all heads first, for they see the
  // most keys when causal.
  const int tiles = ceil_div(shape.Nq, BLOCK_M), heads = gridDim.x / tiles;
  const int bh = blockIdx.x % heads, row0 = (tiles - 1 - blockIdx.x / heads) * BLOCK_M;
  const int head = bh % shape.heads, kv_head = bh / shape.group;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int my_row = row0 + 16 * warp + lane / 4;  // and 8 below it

  const T* Q_rows = Q + (std::size_t(bh) * shape.Nq + row0) * D;  // [rows, D]
  const T* K_head = K + std::size_t(kv_head) * shape.Nkv * D;     // [Nkv, D]
  const T* V_head = V + std::size_t(kv_head) * (sizeof(T) == 1 ? 16 * key_groups : shape.Nkv) * D;

  SharedArena shared;
  auto& Q_smem = shared.take<typename Tile::Q_tile>("Q_smem");
  auto& K_smem = shared.take<typename Tile::KV_tiles>("K_smem");
  auto& V_smem = shared.take<typename Tile::KV_tiles>("V_smem");

  // All in one factor: see make_weights.
  // [hole factors]
  const int shared_head = head / shape.group;
  const float c = shape.scale * kLog2e * (scales.q ? scales.q[head] : 1.0f) *
                  (scales.k ? scales.k[shared_head] : 1.0f);
  const float v_scale = scales.v ? scales.v[shared_head] : 1.0f;
  // [/hole]

  // The tile's last row sees the most keys. Tiles beyond are all masked.
  const int keys = shape.visible_keys(min(row0 + BLOCK_M, shape.Nq) - 1);
  const int key_tiles = keys > 0 ? ceil_div(keys, BLOCK_N) : 0;

  // Starts to copy K's and V's tile j, as one group; beyond the last an empty group.
  const auto copy_tile = [&](int j) {
    if (j < key_tiles) {
      const int rows = shape.Nkv - j * BLOCK_N;
      const auto* K_from =
          reinterpret_cast<const std::byte*>(K_head + std::size_t(j) * BLOCK_N * D);
      const auto* V_from =
          reinterpret_cast<const std::byte*>(V_head + std::size_t(j) * BLOCK_N * D);
      copy_rows<BLOCK_N, ROW, THREADS>(K_smem[j % STAGES], K_from, rows);
      if constexpr (sizeof(T) == 2) {
        copy_rows<BLOCK_N, ROW, THREADS>(V_smem[j % STAGES], V_from, rows);
      } else {  // already a tile, one piece of memory
        const int bytes = (16 * key_groups - j * BLOCK_N) * D;
        static_assert(Tile::TILE % (16 * THREADS) == 0);
#pragma unroll
        for (int i = 0; i < Tile::TILE / 16 / THREADS; ++i) {
          const int x = 16 * (i * THREADS + threadIdx.x);
          cp_async_16(V_smem[j % STAGES] + x, V_from + (x < bytes ? x : 0), x < bytes ? 16 : 0);
        }
      }
    }
    cp_async_commit();
  };

  copy_rows<BLOCK_M, ROW, THREADS>(Q_smem, reinterpret_cast<const std::byte*>(Q_rows),
                                   shape.Nq - row0);  // in the first tile's group
  for (int j = 0; j < STAGES - 1; ++j) copy_tile(j);

  float S_rmem[BLOCK_N / 8][4], O_rmem[D / 8][4] = {};
  std::uint32_t P_rmem[Tile::STEPS_N][4];
  Row row[2];
  for (int j = 0; j < key_tiles; ++j) {
    if constexpr (STAGES == 1) {
      __syncthreads();  // everyone is done with the tile before
      copy_tile(j);
      cp_async_wait<0>();
      __syncthreads();  // the tile is complete
    } else {
      cp_async_wait<STAGES - 2>();  // this thread's part of tile j has landed
      __syncthreads();              // everyone's has; and everyone is done with tile j - 1
      copy_tile(j + STAGES - 1);    // whose place this one takes
    }

    // S = Q Kᵀ  [16 rows a warp, BLOCK_N]
#pragma unroll
    for (int n = 0; n < BLOCK_N / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) S_rmem[n][e] = 0;
    }
    // At D 256 O alone takes half the registers, and loads started early would have nowhere to go.
#pragma unroll(D == 256 ? 1 : Tile::STEPS_D)
    for (int k = 0; k < Tile::STEPS_D; ++k) {
      std::uint32_t q[4];  // 16 rows x 32 bytes
      ldmatrix_x4(q, Q_smem + swizzled<ROW>(16 * warp + lane % 16, 2 * k + lane / 16));
#pragma unroll
      for (int n = 0; n < BLOCK_N / 8; n += 2) {
        std::uint32_t kk[4];  // 16 keys x 32 bytes
        ldmatrix_x4(kk, K_smem[j % STAGES] +
                            swizzled<ROW>(8 * n + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
        multiply<T, WIDEN || !kNativeMma8Bits>(S_rmem[n], q, {kk[0], kk[1]});
        multiply<T, WIDEN || !kNativeMma8Bits>(S_rmem[n + 1], q, {kk[2], kk[3]});
      }
    }

    // Only tiles that the diagonal or the ragged end crosses need a mask.
    const int j0 = j * BLOCK_N;
    if (j0 + BLOCK_N > min(shape.Nkv, shape.visible_keys(row0))) {
      hide_keys(S_rmem, min(shape.Nkv, shape.visible_keys(my_row)) - j0,
                min(shape.Nkv, shape.visible_keys(my_row + 8)) - j0);
    }
    float alpha[2];
    const bool moved = make_weights(S_rmem, row, alpha, c, shift);
    add_weights(S_rmem, row, alpha);
    rescale(O_rmem, alpha, __any_sync(0xffffffff, moved));
    round_P<T>(P_rmem, S_rmem);

    // O += P V  [16 rows a warp, D]
#pragma unroll
    for (int k = 0; k < Tile::STEPS_N; ++k) {
#pragma unroll
      for (int n = 0; n < D / 8; n += 2) {
        std::uint32_t v[4];  // 32 bytes of keys x 16 columns
        if constexpr (sizeof(T) == 2) {
          ldmatrix_x4_trans(v,
                            V_smem[j % STAGES] + swizzled<ROW>(16 * k + lane % 16, n + lane / 16));
        } else {
          const int group = 2 * k + lane / 8 % 2, d = 8 * n + lane / 16 * 8 + lane % 8;
          ldmatrix_x4(v, V_smem[j % STAGES] + (group * D + d) * 16);
        }
        multiply<T, WIDEN || !kNativeMma8Bits>(O_rmem[n], P_rmem[k], {v[0], v[1]});
        multiply<T, WIDEN || !kNativeMma8Bits>(O_rmem[n + 1], P_rmem[k], {v[2], v[3]});
      }
    }
  }

  write_rows(O, out_dtype, LSE, std::size_t(bh) * shape.Nq, O_rmem, row, my_row, shape.Nq, c,
             v_scale, shift);
}
// [/snippet]

// The scale and the factors must be positive; one head's Q, K or V must stay below 2^31 elements.
template <typename T, int D, int STAGES, int WARPS, bool WIDEN = false>
void launch_attention_mma(const Problem& p, const Operands& x, Stream stream) {
  using Tile = MmaTile<T, D, STAGES, WARPS>;
  launch(attention_mma<T, D, STAGES, WARPS, WIDEN>,
         {.name = "attention_mma",
          .grid = dim3(p.batch * p.heads * ceil_div(p.seq, Tile::BLOCK_M)),
          .block = dim3(Tile::THREADS),
          .shared_bytes = std::max(Tile::shared(), Tile::at_least()),
          .stream = stream},
         static_cast<const T*>(x.q), static_cast<const T*>(x.k), static_cast<const T*>(x.v), x.out,
         x.out_dtype, x.lse, x.scales, x.scale_P ? kShift<T> : 0.0f, x.key_groups, KernelShape(p));
}

}  // namespace al::fp8
