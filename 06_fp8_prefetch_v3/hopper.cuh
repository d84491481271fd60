// Attention in 8 bits on Hopper's own units: TMA brings the tiles, wgmma multiplies them, and warps
// divide the labour. After FlashAttention-3 (Shah et al., 2024).
//
//   one producer warp                 asks for tiles as soon as their place is free
//   2 or 3 consumer warpgroups        64 queries each; S = Q Kᵀ of the next keys goes on while
//                                     the softmax of these is computed
//
//   Q [B·Hq, Nq, D]   K [B·Hkv, Nkv, D]   V_tiles [B·Hkv, keys / 16, D, 16], keys a multiple of
//   BLOCK_N   O [B·Hq, Nq, D] in fp16 or bf16   LSE [B·Hq, Nq] or nullptr
//
// As many blocks as there are SMs; each takes tiles of queries until there are none.
#pragma once

#include <algorithm>
#include <cstdint>

#include "06_fp8_prefetch_v3/fragments.cuh"
#include "06_fp8_prefetch_v3/kernels.hpp"
#include "common/kernel_shape.cuh"
#include "common/launch.cuh"
#include "common/ptx/bulk_copy.cuh"
#include "common/ptx/mbarrier.cuh"
#include "common/ptx/named_barrier.cuh"
#include "common/ptx/pin.cuh"
#include "common/ptx/setmaxnreg.cuh"
#include "common/ptx/tma.cuh"
#include "common/ptx/wgmma.cuh"

namespace al::fp8 {

// [snippet tile]
// Registers decide. A consumer thread holds BLOCK_N / 2 of S, D / 2 of O, BLOCK_N / 8 of P; the more
// keys in a tile, the fewer waits. 64 K registers an SM: two consumers have 240 a thread, three 160,
// because the producer gives back what it does not need.
template <int D_>
struct WgmmaTile {
  static constexpr int D = D_;
  static constexpr int CONSUMERS = D == 64 ? 3 : 2, STAGES = 2;
  static constexpr int BLOCK_M = 64 * CONSUMERS, BLOCK_N = D == 64 ? 160 : D == 128 ? 224 : 128;
  static constexpr int THREADS = 128 * (1 + CONSUMERS);
  static constexpr int PRODUCER_REGISTERS = CONSUMERS == 3 ? 32 : 24;
  static constexpr int CONSUMER_REGISTERS = CONSUMERS == 3 ? 160 : 240;

  // Rows of Q and K lie in shared memory in columns of at most 128 bytes: the longest that the
  // tensor cores read swizzled.
  static constexpr int SPAN = std::min(D, 128), SPANS = D / SPAN;
  static constexpr Swizzle SWIZZLE = SPAN == 128 ? Swizzle::b128 : Swizzle::b64;
  struct alignas(1024) Q_tile {
    std::byte columns[SPANS][BLOCK_M][SPAN];
  };
  struct alignas(1024) K_tile {
    std::byte columns[SPANS][BLOCK_N][SPAN];
  };
  struct alignas(1024) V_tile {
    std::byte cores[BLOCK_N / 16][D][16];
  };
  // A ring's stage is full when the copy's bytes have come, empty when all consumers have read it.
  struct Barriers {
    std::uint64_t Q_full, Q_empty;
    std::uint64_t K_full[STAGES], K_empty[STAGES], V_full[STAGES], V_empty[STAGES];
  };
  static constexpr std::size_t shared() {
    return shared_bytes<Q_tile, K_tile[STAGES], V_tile[STAGES], Barriers>();
  }
};
// [/snippet]

// Where in a ring of STAGES someone is, and in which round: the parity that mbarrier_wait() takes.
template <int STAGES>
struct Place {
  int stage = 0, parity = 0;
  __device__ void advance() {
    if (++stage == STAGES) stage = 0, parity ^= 1;
  }
};

// [snippet order]
// The tiles of queries, longest first, so that the short ones fill the end; and dealt to and fro, or
// block 0 would get the longer one in each round. Heads in groups whose K and V stay in L2.
struct WorkList {
  int m_tiles, heads, group;  // heads: B·Hq, `group` at a time
  bool causal;

  struct Item {
    int bh, m;
  };
  __device__ int size() const { return m_tiles * heads; }
  // The block's item in this round; may lie beyond the end.
  __device__ static int index(int round) {
    const int blocks = gridDim.x, mine = blockIdx.x;
    return round * blocks + (round % 2 == 0 ? mine : blocks - 1 - mine);
  }
  __device__ Item item(int index) const {
    const int first = index / (group * m_tiles) * group;  // head of this group
    const int in_group = index - first * m_tiles, here = min(group, heads - first);
    const int m = in_group / here;
    return {first + in_group - m * here, causal ? m_tiles - 1 - m : m};
  }
};
// [/snippet]

template <typename T, int D>
__global__ void __launch_bounds__(WgmmaTile<D>::THREADS, 1)
    attention_wgmma(const __grid_constant__ TensorMap Q_map, const __grid_constant__ TensorMap K_map,
                    const T* V_tiles, void* O, DType out_dtype, float* LSE, Scales scales,
                    float shift, int key_tiles_of_head, WorkList work, KernelShape shape) {
  using Tile = WgmmaTile<D>;
  constexpr int BLOCK_M = Tile::BLOCK_M, BLOCK_N = Tile::BLOCK_N, STAGES = Tile::STAGES;
  constexpr int CONSUMERS = Tile::CONSUMERS, SPAN = Tile::SPAN, SPANS = Tile::SPANS;

  SharedArena shared;
  auto& Q_smem = shared.take<typename Tile::Q_tile>("Q_smem");
  auto& K_smem = shared.take<typename Tile::K_tile[STAGES]>("K_smem");
  auto& V_smem = shared.take<typename Tile::V_tile[STAGES]>("V_smem");
  auto& barriers = shared.take<typename Tile::Barriers>("barriers");
  if (threadIdx.x == 0) {
    mbarrier_init(&barriers.Q_full, 1);
    mbarrier_init(&barriers.Q_empty, CONSUMERS);
    for (int s = 0; s < STAGES; ++s) {
      mbarrier_init(&barriers.K_full[s], 1);
      mbarrier_init(&barriers.K_empty[s], CONSUMERS);
      mbarrier_init(&barriers.V_full[s], 1);
      mbarrier_init(&barriers.V_empty[s], CONSUMERS);
    }
    fence_mbarrier_init();
  }
  __syncthreads();  // the barriers are there before anyone waits

  // Tiles of keys that some row of tile m of queries sees: its last row sees the most.
  const auto key_tiles = [&](int m) {
    return ceil_div(max(0, shape.visible_keys(min((m + 1) * BLOCK_M, shape.Nq) - 1)), BLOCK_N);
  };
  const int warpgroup = threadIdx.x / 128;

  if (warpgroup == 0) {
    // [snippet producer]
    setmaxnreg_dec<Tile::PRODUCER_REGISTERS>();
    if (threadIdx.x != 0) return;
    Place<1> Q_place;
    Place<STAGES> K_place, V_place;
    for (int round = 0, i; (i = work.index(round)) < round * int(gridDim.x) + int(gridDim.x) &&
                           round * int(gridDim.x) < work.size();
         ++round) {
      if (i >= work.size()) continue;
      const auto [bh, m] = work.item(i);
      const int tiles = key_tiles(m), kv_head = shape.kv_head(bh);
      if (tiles == 0) continue;
      const T* V_head = V_tiles + std::size_t(kv_head) * key_tiles_of_head * BLOCK_N * D;

      mbarrier_wait(&barriers.Q_empty, Q_place.parity ^ 1);
      mbarrier_arrive_expect_tx(&barriers.Q_full, sizeof(Q_smem));
      for (int s = 0; s < SPANS; ++s) {
        tma_load(&Q_smem.columns[s], Q_map, &barriers.Q_full, {s * SPAN, m * BLOCK_M, bh});
      }
      Q_place.advance();

      const auto load_K = [&](int j) {
        const int stage = K_place.stage;
        mbarrier_wait(&barriers.K_empty[stage], K_place.parity ^ 1);
        mbarrier_arrive_expect_tx(&barriers.K_full[stage], sizeof(K_smem[stage]));
        for (int s = 0; s < SPANS; ++s) {
          tma_load(&K_smem[stage].columns[s], K_map, &barriers.K_full[stage],
                   {s * SPAN, j * BLOCK_N, kv_head});
        }
        K_place.advance();
      };
      const auto load_V = [&](int j) {
        const int stage = V_place.stage;
        mbarrier_wait(&barriers.V_empty[stage], V_place.parity ^ 1);
        mbarrier_arrive_expect_tx(&barriers.V_full[stage], sizeof(V_smem[stage]));
        bulk_copy(&V_smem[stage], V_head + std::size_t(j) * BLOCK_N * D, sizeof(V_smem[stage]),
                  &barriers.V_full[stage]);
        V_place.advance();
      };
      // From the last tile of keys to the first: the diagonal comes first.
      load_K(tiles - 1);
      for (int j = tiles - 2; j >= 0; --j) {
        load_K(j);
        load_V(j + 1);
      }
      load_V(0);
    }
    return;
    // [/snippet]
  }

  setmaxnreg_inc<Tile::CONSUMER_REGISTERS>();
  // TODO consumer
}

}  // namespace al::fp8
