// Attention in 8 bits on Hopper's own units: TMA brings the tiles, wgmma multiplies them, and warps
// divide the labour. After FlashAttention-3 (Shah et al., 2024).
//
//   one producer warpgroup            one thread of it asks for tiles as their places become free
//   2 or 3 consumer warpgroups        64 queries each; P V of one tile goes on while the
//                                     exponentials of the next are computed
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
#include "common/ptx/dependent_launch.cuh"
#include "common/ptx/mbarrier.cuh"
#include "common/ptx/named_barrier.cuh"
#include "common/ptx/pin.cuh"
#include "common/ptx/setmaxnreg.cuh"
#include "common/ptx/tma.cuh"
#include "common/ptx/wgmma.cuh"

namespace al::fp8 {

// [snippet tile]
// Registers decide. A consumer thread holds BLOCK_N / 2 of S, D / 2 of O, BLOCK_N / 8 of P; the
// more keys in a tile, the fewer waits. 64 K registers an SM: two consumers have 240 a thread,
// three 160, because the producer gives back what it does not need.
template <int D_>
struct WgmmaTile {
  static constexpr int D = D_;
  static constexpr int CONSUMERS = D == 64 ? 3 : 2, STAGES = 2;
  static constexpr int BLOCK_M = 64 * CONSUMERS, BLOCK_N = D == 64 ? 160 : D == 128 ? 224 : 128;
  static constexpr int THREADS = 128 * (1 + CONSUMERS);
  static constexpr bool PING_PONG = CONSUMERS == 2;
  // Three switches, each as it was measured to be faster. The maximum from the bits, in half the
  // instructions; going past the rescaling of O where no maximum has moved; and exponentials that
  // are held together, in one stream, with the additions behind the last of them.
  static constexpr bool BY_BITS = D != 256, SKIP_RESCALE = D != 128, HELD = D == 128;
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
// The tiles of queries, longest first, so that the short ones fill the end; and dealt to and fro,
// or block 0 would get the longest of each round. Heads `group` at a time: each group ends with its
// own short tiles, so the fewer groups the better, as long as the K and V of one are not too many
// for L2.
struct WorkList {
  int m_tiles, heads, group;  // heads: B·Hq
  bool causal;

  struct Item {
    int bh, m;
  };
  __device__ int size() const { return m_tiles * heads; }
  // The block's item in this round; in the last round there may be none, and it lies beyond the
  // end.
  __device__ int index(int round) const {
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

// A descriptor of what lies `bytes` further on: the address is in its lowest bits, in 16-byte
// units.
__device__ __forceinline__ std::uint64_t further(std::uint64_t descriptor, int bytes) {
  return descriptor + (bytes >> 4);
}

// What both sides of the kernel know of a tile of queries.
template <typename Tile>
struct KeyTiles {
  const KernelShape& shape;

  // Tiles of keys that some of `rows` rows from `row0` on sees: the last of them sees the most.
  __device__ int seen_by(int row0, int rows) const {
    if (row0 >= shape.Nq) return 0;
    const int last = min(row0 + rows, shape.Nq) - 1;
    return ceil_div(max(0, shape.visible_keys(last)), Tile::BLOCK_N);
  }
  // Those that all rows from `row0` on see whole, and that need no mask.
  __device__ int whole(int row0) const {
    return max(0, min(shape.Nkv, shape.visible_keys(row0))) / Tile::BLOCK_N;
  }
};

template <typename T, int D>
__global__ void __launch_bounds__(WgmmaTile<D>::THREADS, 1)
    attention_wgmma(const __grid_constant__ TensorMap Q_map,
                    const __grid_constant__ TensorMap K_map, const T* V_tiles, void* O,
                    DType out_dtype, float* LSE, Scales scales, float shift, int key_groups,
                    WorkList work, KernelShape shape) {
  using Tile = WgmmaTile<D>;
  constexpr int BLOCK_M = Tile::BLOCK_M, BLOCK_N = Tile::BLOCK_N, STAGES = Tile::STAGES;
  constexpr int CONSUMERS = Tile::CONSUMERS, SPAN = Tile::SPAN, SPANS = Tile::SPANS;
  const KeyTiles<Tile> key_tiles{shape};
  // From lane 0, so that the compiler knows it is the same in the whole warp, and all that follows
  // from it is computed once a warp and not once a lane.
  const int warpgroup = __shfl_sync(0xffffffff, threadIdx.x / 128, 0);

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
  __syncthreads();              // the barriers are there before anyone waits
  wait_for_kernels_in_front();  // tile_V: all before this line is done while that ends
  Place<1> Q_place;
  Place<STAGES> K_place, V_place;

  // [snippet producer]
  if (warpgroup == 0) {
    setmaxnreg_dec<Tile::PRODUCER_REGISTERS>();
    if (threadIdx.x != 0) return;
    for (int round = 0; round * int(gridDim.x) < work.size(); ++round) {
      if (work.index(round) >= work.size()) return;
      const auto [bh, m] = work.item(work.index(round));
      const int tiles = key_tiles.seen_by(m * BLOCK_M, BLOCK_M), kv_head = shape.kv_head(bh);
      if (tiles == 0) continue;
      const T* V_head = V_tiles + std::size_t(kv_head) * key_groups * 16 * D;

      mbarrier_wait(&barriers.Q_empty, Q_place.parity ^ 1);
      mbarrier_arrive_expect_tx(&barriers.Q_full, sizeof(Q_smem));
      for (int s = 0; s < SPANS; ++s) {
        tma_load(&Q_smem.columns[s], Q_map, &barriers.Q_full, {s * SPAN, m * BLOCK_M, bh});
      }
      Q_place.advance();

      const auto load_K = [&](int j) {
        std::uint64_t* full = &barriers.K_full[K_place.stage];
        auto& K_to = K_smem[K_place.stage];
        mbarrier_wait(&barriers.K_empty[K_place.stage], K_place.parity ^ 1);
        mbarrier_arrive_expect_tx(full, sizeof(K_to));
        for (int s = 0; s < SPANS; ++s) {
          tma_load(&K_to.columns[s], K_map, full, {s * SPAN, j * BLOCK_N, kv_head});
        }
        K_place.advance();
      };
      const auto load_V = [&](int j) {
        std::uint64_t* full = &barriers.V_full[V_place.stage];
        auto& V_to = V_smem[V_place.stage];
        mbarrier_wait(&barriers.V_empty[V_place.stage], V_place.parity ^ 1);
        mbarrier_arrive_expect_tx(full, sizeof(V_to));
        bulk_copy(&V_to, V_head + std::size_t(j) * BLOCK_N * D, sizeof(V_to), full);
        V_place.advance();
      };
      // From the last tile to the first, so that the diagonal comes first; K one tile ahead of V.
      load_K(tiles - 1);
      for (int j = tiles - 2; j >= 0; --j) {
        load_K(j);
        load_V(j + 1);
      }
      load_V(0);
    }
    return;
  }
  // [/snippet]

  setmaxnreg_inc<Tile::CONSUMER_REGISTERS>();
  const int consumer = warpgroup - 1, warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  // One thread speaks for its warpgroup: what is asynchronous is in order for all of it.
  const auto release = [&](std::uint64_t* empty) {
    if (threadIdx.x % 128 == 0) mbarrier_arrive(empty);
  };
  // Ping-pong: the products of one warpgroup run while the other is at its softmax.
  const int my_turn = 1 + consumer, next_turn = 1 + (consumer + 1) % CONSUMERS;
  const auto take_turn = [&] {
    if constexpr (Tile::PING_PONG) named_barrier_sync(my_turn, 256);
  };
  const auto pass_turn = [&] {
    if constexpr (Tile::PING_PONG) named_barrier_arrive(next_turn, 256);
  };
  if (consumer == CONSUMERS - 1) pass_turn();  // the first is the first's

  float S_rmem[BLOCK_N / 8][4], O_rmem[D / 8][4];
  std::uint32_t P_rmem[BLOCK_N / 32][4];

  for (int round = 0; round * int(gridDim.x) < work.size(); ++round) {
    if (work.index(round) >= work.size()) break;
    const auto [bh, m] = work.item(work.index(round));
    const int head = bh % shape.heads, shared_head = head / shape.group;
    const int row0 = m * BLOCK_M + 64 * consumer;    // of this warpgroup
    const int my_row = row0 + 16 * warp + lane / 4;  // and 8 below it
    const int tiles = key_tiles.seen_by(m * BLOCK_M, BLOCK_M);
    const int my_tiles = key_tiles.seen_by(row0, 64);  // the others are for rows further down
    const int whole_tiles = key_tiles.whole(row0);
    const float c = shape.scale * kLog2e * (scales.q ? scales.q[head] : 1.0f) *
                    (scales.k ? scales.k[shared_head] : 1.0f);
    Row row[2];
    float alpha[2];
    bool moved;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) O_rmem[n][e] = 0;
    }

    // [snippet products]
    // S = Q Kᵀ: starts it. 32 bytes of D a time.
    const auto start_QK = [&] {
      const std::uint64_t Q = wgmma_descriptor(&Q_smem.columns[0][64 * consumer], Tile::SWIZZLE, 16,
                                               8 * SPAN),
                          K = wgmma_descriptor(&K_smem[K_place.stage], Tile::SWIZZLE, 16, 8 * SPAN);
#pragma unroll
      for (int k = 0; k < D; k += 32) {
        const int column = k / SPAN, in_span = k % SPAN;
        wgmma_ss<T>(S_rmem, further(Q, column * BLOCK_M * SPAN + in_span),
                    further(K, column * BLOCK_N * SPAN + in_span), k > 0);
      }
      wgmma_commit();
    };
    // O += P V: starts it. 32 keys at a time; V's cores of 8 columns x 16 keys lie 128 bytes apart
    // along D, and D · 16 along the keys.
    const auto start_PV = [&] {
      const std::uint64_t V = wgmma_descriptor(&V_smem[V_place.stage], Swizzle::none, 16 * D, 128);
#pragma unroll
      for (int k = 0; k < BLOCK_N / 32; ++k) {
        wgmma_rs<T>(O_rmem, P_rmem[k], further(V, k * 32 * D), true);
      }
      wgmma_commit();
    };
    // [/snippet]
    // The softmax of tile j. With `masked`, the diagonal or the ragged end crosses it.
    const auto weigh = [&](int j, auto masked) {
      if constexpr (masked.value) {
        const int j0 = j * BLOCK_N;
        hide_keys(S_rmem, min(shape.Nkv, shape.visible_keys(my_row)) - j0,
                  min(shape.Nkv, shape.visible_keys(my_row + 8)) - j0);
      }
      moved = make_weights<Tile::BY_BITS>(S_rmem, row, alpha, c, shift);
    };
    // There is a tile j of K, and it has come.
    const auto wait_for_K = [&](int j) {
      if (j >= 0) mbarrier_wait(&barriers.K_full[K_place.stage], K_place.parity);
    };
    const auto K_done = [&] {
      release(&barriers.K_empty[K_place.stage]);
      K_place.advance();
    };
    const auto V_done = [&] {
      release(&barriers.V_empty[V_place.stage]);
      V_place.advance();
    };

    // Tiles that none of these rows sees are given back unread, V's a step behind K's, as the
    // producer brings them: who took all of K first would wait for a producer who waits for V's
    // place. Elsewhere wgmma holds the four warps together. Here a barrier does, or a warp that
    // came late would find the ring two rounds further on, where the parity is the same again.
    // [snippet skip]
    const auto skip = [&](std::uint64_t* full, std::uint64_t* empty, int parity) {
      mbarrier_wait(full, parity);
      named_barrier_sync(4 + consumer, 128);  // all four have seen it full
      release(empty);
    };
    const auto skip_V = [&] {
      skip(&barriers.V_full[V_place.stage], &barriers.V_empty[V_place.stage], V_place.parity);
      V_place.advance();
    };
    for (int j = tiles - 1; j >= my_tiles; --j) {
      skip(&barriers.K_full[K_place.stage], &barriers.K_empty[K_place.stage], K_place.parity);
      K_place.advance();
      take_turn();
      pass_turn();
      if (j < tiles - 1) skip_V();
    }
    const bool one_V_left = my_tiles < tiles;
    // [/snippet]
    if (tiles > 0) {
      if (my_tiles > 0) {
        mbarrier_wait(&barriers.Q_full, Q_place.parity);
      } else {
        skip(&barriers.Q_full, &barriers.Q_empty, Q_place.parity);
      }
      Q_place.advance();
    }

    if (my_tiles > 0) {
      // [snippet pipeline]
      wait_for_K(0);
      take_turn();
      wgmma_fence();
      start_QK();
      pass_turn();
      wgmma_wait<0>();
      pin(S_rmem);
      K_done();
      weigh(my_tiles - 1, std::true_type{});
      add_weights(S_rmem, row, alpha);
      round_P<T>(P_rmem, S_rmem);
      if (one_V_left) skip_V();
      if constexpr (Tile::HELD) wait_for_K(my_tiles - 2);

      const auto step = [&](int j, auto masked) {
        if constexpr (!Tile::HELD) wait_for_K(j);
        take_turn();
        wgmma_fence();
        start_QK();  // of tile j
        mbarrier_wait(&barriers.V_full[V_place.stage], V_place.parity);
        pin(O_rmem);
        wgmma_fence();
        start_PV();  // of tile j + 1
        pass_turn();
        wgmma_wait<1>();
        pin(S_rmem);  // the first product is done …
        K_done();
        weigh(j, masked);
        if constexpr (Tile::HELD) {
          // K is wanted in the next step only. But a wait is a branch, across which the compiler
          // moves nothing: without it, an addition would stand behind each exponential, and the
          // wait for O above them all.
          pin(S_rmem);
          wait_for_K(j - 1);
          pin(S_rmem);
        }
        add_weights(S_rmem, row, alpha);
        pin(S_rmem);
        wgmma_wait<0>();
        pin(O_rmem);  // … and now the second
        V_done();
        round_P<T>(P_rmem, S_rmem);
        rescale(O_rmem, alpha, !Tile::SKIP_RESCALE || __any_sync(0xffffffff, moved));
      };
      int j = my_tiles - 2;
#pragma unroll 1
      for (; j >= whole_tiles; --j) step(j, std::true_type{});
#pragma unroll 1
      for (; j >= 0; --j) step(j, std::false_type{});
      release(&barriers.Q_empty);

      mbarrier_wait(&barriers.V_full[V_place.stage], V_place.parity);
      wgmma_fence();
      start_PV();
      wgmma_wait<0>();
      pin(O_rmem);
      V_done();
      // [/snippet]
    } else if (tiles > 0) {
      skip_V();
    }

    write_rows(O, out_dtype, LSE, std::size_t(bh) * shape.Nq, O_rmem, row, my_row, shape.Nq, c,
               scales.v ? scales.v[shared_head] : 1.0f, shift);
  }
}

// The scale and the factors must be positive. V_tiles in whole tiles of BLOCK_N keys.
template <typename T, int D>
void launch_attention_wgmma(const Problem& p, const Operands& x, Stream stream) {
  using Tile = WgmmaTile<D>;
  const auto map = [&](const void* data, int rows, int heads, int box_rows) {
    const std::uint64_t d = D, n = rows, h = std::uint64_t(p.batch) * heads;
    return make_tensor_map(
        data, TensorElement::u8,
        {.sizes = {d, n, h}, .strides = {d, d * n}, .box = {Tile::SPAN, unsigned(box_rows), 1}},
        Tile::SWIZZLE);
  };
  const WorkList work{.m_tiles = ceil_div(p.seq, Tile::BLOCK_M),
                      .heads = p.batch * p.heads,
                      .group = std::min(p.batch * p.heads, 32),
                      .causal = p.causal};
  launch(attention_wgmma<T, D>,
         {.name = "attention_wgmma",
          .grid = dim3(std::min(work.m_tiles * work.heads, device().sms)),
          .block = dim3(Tile::THREADS),
          .shared_bytes = Tile::shared(),
          .stream = stream,
          .overlaps = true},
         map(x.q, p.seq, p.heads, Tile::BLOCK_M), map(x.k, p.kv_seq, p.kv_heads, Tile::BLOCK_N),
         static_cast<const T*>(x.v), x.out, x.out_dtype, x.lse, x.scales,
         x.scale_P ? kShift<T> : 0.0f, x.key_groups, work, KernelShape(p));
}

}  // namespace al::fp8
