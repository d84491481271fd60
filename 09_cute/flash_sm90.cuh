// FlashAttention as a Hopper GPU likes it, in CuTe: TMA copies whole tiles, WGMMA multiplies them
// straight from shared memory, both run by themselves, and the warps of a block have professions.
//
//   Q [B·Hq, Nq, D]   K, V [B·Hkv, Nkv, D]   O [B·Hq, Nq, D]   LSE [B·Hq, Nq]
//
// A block computes BLOCK_M rows of O: 64 for each of its computing warpgroups, which is what one
// WGMMA takes. (A warpgroup is four warps, 128 threads.) One more warpgroup, of which a single
// thread works, starts the copies. They meet at barriers in shared memory:
//
//   copying thread    K₃ Q ──► K₂ V₃ ──► K₁ V₂ ──► K₀ V₁ ──► V₀    waits until a buffer is empty
//   each warpgroup        S₃    S₂ O₃     S₁ O₂     S₀ O₁     O₀   waits until a buffer is full
//
// Keys are walked in tiles of BLOCK_N, the last tile first: the masked ones come first then, and
// the loop after them knows no mask. The softmax is that of flash_sm80.cuh.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "09_cute/flash_sm90.hpp"
#include "09_cute/instructions_sm90.cuh"
#include "09_cute/tile_order.cuh"
#include "common/kernel_shape.cuh"
#include "common/launch.cuh"
#include "common/ptx/exp2.cuh"
#include "common/ptx/named_barrier.cuh"
#include "common/ptx/setmaxnreg.cuh"
#include "common/ptx/tma.cuh"
#include "common/shared_arena.cuh"

namespace al::cute_attention {

using namespace cute;
using cute::Tensor;  // not al::Tensor

// A tile of O and the tiles of keys that it needs: 0 … key_tiles - 1. No tiles: no more work.
struct Work {
  int bh, batch, head, row0, key_tiles;
};

// The types of one instance: everything about who holds what is decided here, at compile time.
// [snippet config]
template <typename T_, int D_, bool CAUSAL_, Sm90Tile TILE_, Sm90Steps STEPS_>
struct Sm90Config {
  using T = T_;
  static constexpr Sm90Tile TILE = TILE_;
  static constexpr Sm90Steps STEPS = STEPS_;
  static constexpr bool CAUSAL = CAUSAL_;
  static constexpr int D = D_, BLOCK_M = TILE.block_m, BLOCK_N = TILE.block_n;
  static constexpr int K_STAGES = TILE.k_stages, V_STAGES = TILE.v_stages;  // buffers
  static constexpr int WARPGROUPS = BLOCK_M / 64;                           // that compute
  static constexpr int THREADS = 128 * (WARPGROUPS + (STEPS.specialised ? 1 : 0));
  static_assert(BLOCK_M % 64 == 0 && BLOCK_N % 16 == 0 && D % 64 == 0);
  // 65536 registers for all, but the copying warpgroup needs few.
  static constexpr int COPY_REGISTERS = WARPGROUPS == 2 ? 24 : 32;
  static constexpr int COMPUTE_REGISTERS = WARPGROUPS == 2 ? 240 : 160;

  // Shared memory in boxes of 8 rows x 128 bytes, swizzled as TMA writes and WGMMA reads them. A
  // row of a tile is D / 64 boxes wide; each such column of boxes, a slab, is one copy.
  static constexpr int SLABS = D / 64;
  using Box = GMMA::Layout_K_SW128_Atom<T>;
  using SmemQ = decltype(tile_to_shape(Box{}, Shape<Int<BLOCK_M>, Int<D>>{}));
  using SmemK = decltype(tile_to_shape(Box{}, Shape<Int<BLOCK_N>, Int<D>, Int<K_STAGES>>{}));
  using SmemV = decltype(tile_to_shape(Box{}, Shape<Int<BLOCK_N>, Int<D>, Int<V_STAGES>>{}));
  // V is stored as it comes, [BLOCK_N, D]; the product wants to see [D, BLOCK_N].
  using SmemVt =
      decltype(composition(SmemV{}, Layout<Shape<Int<D>, Int<BLOCK_N>, Int<V_STAGES>>,
                                           Stride<Int<BLOCK_N>, _1, Int<BLOCK_N * D>>>{}));

  // A warpgroup's products: S [64, BLOCK_N] = Q Kᵀ, and O [64, D] += P V with P from registers.
  using MmaQK = decltype(make_tiled_mma(WgmmaSS<T, BLOCK_N>{}));
  using MmaPV = decltype(make_tiled_mma(WgmmaRS<T, D>{}));

  struct alignas(1024) QTile {  // the swizzle is by address: whole patterns of 1024 bytes
    T data[BLOCK_M * D];
  };
  struct alignas(1024) KTile {
    T data[BLOCK_N * D];
  };
  struct Barriers {
    std::uint64_t Q_full, Q_empty, K_full[K_STAGES], K_empty[K_STAGES], V_full[V_STAGES],
        V_empty[V_STAGES], work_full, work_empty;
  };
  // On its way out, O has room of its own where there is any; else it goes where Q lay.
  static constexpr std::size_t WITHOUT_O =
      shared_bytes<QTile, KTile[K_STAGES], KTile[V_STAGES], Barriers, Work>();
  static constexpr bool O_HAS_ROOM =
      shared_bytes<QTile, KTile[K_STAGES], KTile[V_STAGES], Barriers, Work, QTile>() <= 227 * 1024;
  static constexpr std::size_t SHARED =
      O_HAS_ROOM ? shared_bytes<QTile, KTile[K_STAGES], KTile[V_STAGES], Barriers, Work, QTile>()
                 : WITHOUT_O;
};
// [/snippet]

struct Sm90Arguments {
  TensorMap Q, K, V, O;  // [B, H, N, D]; a copy takes 64 columns of some rows of one head
  const void *Q_data, *K_data, *V_data;  // the same by address; see without_leaks()
  float* LSE;                            // [B, Hq, Nq] or nullptr
  int* counter;                          // tiles given away so far; 0 before and after a launch
  KernelShape shape;
  TileOrder order;
};

// The block's shared memory.
template <typename Config>
struct Sm90Shared {
  typename Config::QTile& Q;
  typename Config::KTile (&K)[Config::K_STAGES];
  typename Config::KTile (&V)[Config::V_STAGES];
  typename Config::QTile& O;
  typename Config::Barriers& barriers;
  Work& next_work;
};

// Where someone is in a ring of buffers: which one, and whether the lap is odd. Each barrier of a
// ring has one phase a lap, and waits are for the lap's parity. "Empty" is waited for with the
// parity of the lap before, which in the first lap counts as over.
template <int STAGES>
struct Ring {
  int stage = 0;
  std::uint32_t lap = 0;

  __device__ void next() {
    if (++stage == STAGES) stage = 0, lap ^= 1;
  }
};

template <typename Config>
__device__ int visible(const KernelShape& shape, int row) {
  return Config::CAUSAL ? min(shape.Nkv, row + 1 + shape.Nkv - shape.Nq) : shape.Nkv;
}

// Tiles of keys that a row sees. At least one: a row that sees no key is masked, and its zeros are
// written, like all others.
template <typename Config>
__device__ int tiles_seen_by(const KernelShape& shape, int row) {
  return max(1, ceil_div(visible<Config>(shape, row), Config::BLOCK_N));
}

template <typename Config>
__device__ Work work_of(const Sm90Arguments& args, int tile) {
  if (tile >= args.order.tiles()) return {.key_tiles = 0};
  const OutputTile out = args.order(tile);
  const int row0 = out.m * Config::BLOCK_M;
  const int last_row = min(row0 + Config::BLOCK_M, args.shape.Nq) - 1;
  return {.bh = out.bh,
          .batch = out.bh / args.shape.heads,
          .head = out.bh % args.shape.heads,
          .row0 = row0,
          .key_tiles = tiles_seen_by<Config>(args.shape, last_row)};
}

// Starts the copies: one thread's work.
// [snippet loader]
template <typename Config>
struct Loader {
  const Sm90Arguments& args;
  const Sm90Shared<Config>& shared;
  Ring<1> Q_at = {};
  Ring<Config::K_STAGES> K_at = {};
  Ring<Config::V_STAGES> V_at = {};
  Work work = {};  // of now

  __device__ void load_Q() {
    auto& barriers = shared.barriers;
    mbarrier_wait(&barriers.Q_empty, Q_at.lap ^ 1);
    mbarrier_arrive_expect_tx(&barriers.Q_full, sizeof(shared.Q));
#pragma unroll 1
    for (int w = 0; w < Config::WARPGROUPS; ++w) {  // 64 rows at a time, as O will be stored
      for (int s = 0; s < Config::SLABS; ++s) {
        tma_load<L2Hint::evict_first>(&shared.Q.data[(s * Config::BLOCK_M + w * 64) * 64], args.Q,
                                      &barriers.Q_full,
                                      {s * 64, work.row0 + w * 64, work.head, work.batch});
      }
    }
    Q_at.next();
  }
  __device__ void load_K(int j) {
    load(args.K, shared.K, shared.barriers.K_full, shared.barriers.K_empty, K_at, j);
  }
  __device__ void load_V(int j) {
    load(args.V, shared.V, shared.barriers.V_full, shared.barriers.V_empty, V_at, j);
  }

 private:
  // Tile j of K or V: rows j · BLOCK_N …; beyond the last key come zeros.
  template <int STAGES>
  __device__ void load(const TensorMap& map, typename Config::KTile (&tiles)[STAGES],
                       std::uint64_t (&full)[STAGES], std::uint64_t (&empty)[STAGES],
                       Ring<STAGES>& at, int j) {
    mbarrier_wait(&empty[at.stage], at.lap ^ 1);
    mbarrier_arrive_expect_tx(&full[at.stage], sizeof(tiles[0]));
#pragma unroll
    for (int s = 0; s < Config::SLABS; ++s) {
      tma_load<L2Hint::evict_last>(
          &tiles[at.stage].data[s * Config::BLOCK_N * 64], map, &full[at.stage],
          {s * 64, j * Config::BLOCK_N, work.head / args.shape.group, work.batch});
    }
    at.next();
  }
};

// The copying thread's life.
template <typename Config>
__device__ __forceinline__ void copy_tiles(const Sm90Arguments& args,
                                           const Sm90Shared<Config>& shared) {
  Loader<Config> loader{args, shared};
  Ring<1> work_at;
  loader.work = work_of<Config>(args, blockIdx.x);
  while (loader.work.key_tiles > 0) {
    int next_tile = args.order.tiles();
    if constexpr (Config::STEPS.persistent) {
      // Asked now, so that the answer is there when it is needed. Each tile asks once: the last to
      // ask leaves the counter as the next launch wants it.
      const int given = atomicAdd(args.counter, 1);
      if (given == args.order.tiles() - 1) *args.counter = 0;
      next_tile = gridDim.x + given;
    }
    int j = loader.work.key_tiles - 1;
    loader.load_K(j);
    loader.load_Q();
#pragma unroll 1
    for (; j > 0; --j) {
      loader.load_K(j - 1);
      loader.load_V(j);
    }
    loader.load_V(0);
    loader.work = work_of<Config>(args, next_tile);
    if constexpr (Config::STEPS.persistent) {  // tell the others
      mbarrier_wait(&shared.barriers.work_empty, work_at.lap ^ 1);
      shared.next_work = loader.work;
      mbarrier_arrive(&shared.barriers.work_full);
      work_at.next();
    }
  }
}
// [/snippet]

// An accumulator ((2, 2, N/8), 1, 1) seen as the matrix it is to the softmax: the thread's two
// rows, 8 apart, and their columns (2, N/8).
template <typename Fragment>
__device__ __forceinline__ auto by_rows(Fragment& c) {
  const auto l = c.layout();
  return make_tensor(c.data(), make_layout(get<0, 1>(l), make_layout(get<0, 0>(l), get<0, 2>(l))));
}

// Rounds a fragment, two elements an instruction, in their order: what WGMMA leaves of 16 columns
// of its result is in the same lanes what it wants of 16 columns of its A operand.
template <typename From, typename To>
__device__ __forceinline__ void round_to(To& to, const From& from) {
#pragma unroll
  for (int i = 0; i < size(from); i += 2) {
    if constexpr (std::is_same_v<typename To::value_type, half_t>) {
      reinterpret_cast<__half2&>(to(i)) = __floats2half2_rn(from(i), from(i + 1));
    } else {
      reinterpret_cast<__nv_bfloat162&>(to(i)) = __floats2bfloat162_rn(from(i), from(i + 1));
    }
  }
}

// Starts c = a b (ZERO) or c += a b. Until wgmma_wait() the tensor cores read and write behind
// the program's back: c must not be touched, nor a where it is in registers. The fences tell the
// compiler so.
// [snippet start_product]
template <bool ZERO, typename Mma, typename A, typename B, typename C>
__device__ __forceinline__ void start_product(Mma& mma, const A& a, const B& b, C& c) {
  warpgroup_fence_operand(c);
  wgmma_fence();
  mma.accumulate_ = ZERO ? GMMA::ScaleOut::Zero : GMMA::ScaleOut::One;
#pragma unroll
  for (int k = 0; k < size<2>(a); ++k) {  // 16 at a time
    gemm(mma, a(_, _, k), b(_, _, k), c);
    mma.accumulate_ = GMMA::ScaleOut::One;
  }
  wgmma_commit();
  warpgroup_fence_operand(c);
}
// [/snippet]

// The softmax so far of a thread's two rows.
struct RowState {
  float m[2] = {-INFINITY, -INFINITY};  // largest score, before it is scaled
  float l[2] = {0, 0};                  // this thread's part of the sum of P
  float rescale[2] = {0, 0};            // what O must be multiplied by
};

__device__ __forceinline__ float quad_max(float x) {  // over the four lanes that share a row
  x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffff, x, 1);
  return x + __shfl_xor_sync(0xffffffff, x, 2);
}

// The softmax of a tile, first half: each row's maximum so far. Returns whether it has moved, so
// that O must be rescaled.
// [snippet softmax]
template <bool LAZY, typename Scores>
__device__ __forceinline__ bool row_maxima(const Scores& S, RowState& row, float scale_log2) {
  float m[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    m[r] = fmaxf(row.m[r], S(r, 0));
#pragma unroll
    for (int c = 1; c < size<1>(S); ++c) m[r] = fmaxf(m[r], S(r, c));
    m[r] = quad_max(m[r]);
  }
  if constexpr (LAZY) {
    // A maximum that lags behind is as good, as long as nothing overflows: P and l are too large by
    // the same factor, 2^8 at the most.
    const bool far = (m[0] - row.m[0]) * scale_log2 > 8 || (m[1] - row.m[1]) * scale_log2 > 8;
    if (!__any_sync(0xffffffff, far)) return false;
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    // A row that has seen no key yet has nothing to rescale; -inf - -inf would be NaN.
    row.rescale[r] = row.m[r] == -INFINITY ? 0 : fast_exp2((row.m[r] - m[r]) * scale_log2);
    row.l[r] *= row.rescale[r];
    row.m[r] = m[r];
  }
  return true;
}

// Second half: S becomes P = 2^((S - m) · scale · log2 e), in place.
template <typename Scores>
__device__ __forceinline__ void exponentials(Scores& S, RowState& row, float scale_log2) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float m_scaled = row.m[r] == -INFINITY ? 0 : row.m[r] * scale_log2;
    float l_odd = 0;  // two sums, so that an addition need not wait for the one before
#pragma unroll
    for (int c = 0; c < size<1>(S); ++c) {
      S(r, c) = fast_exp2(S(r, c) * scale_log2 - m_scaled);
      (c % 2 ? l_odd : row.l[r]) += S(r, c);
    }
    row.l[r] += l_odd;
  }
}
// [/snippet]

// The tensor cores multiply V by the zeros in P of keys that a row does not see, and 0 · NaN is
// NaN. So where O is not finite it is summed up again, on the CUDA cores and of visible keys alone.
// Slow, and only where some V is NaN or infinite.
template <typename Config, typename Rows_of_O>
__device__ __forceinline__ void without_leaks(Rows_of_O& O, const RowState& rows, int row,
                                              const Work& work, const Sm90Arguments& args,
                                              float scale_log2) {
  using T = typename Config::T;
  constexpr int D = Config::D;
  const KernelShape& shape = args.shape;
  const int lane = threadIdx.x % 32;
  float zeros = 0;
#pragma unroll
  for (int i = 0; i < size(O); ++i) zeros += 0 * O(i);
  if (!__any_sync(0xffffffff, zeros != 0)) return;

  const std::size_t kv = std::size_t(shape.kv_head(work.bh)) * shape.Nkv * D;
  const T* K = static_cast<const T*>(args.K_data) + kv;  // [Nkv, D]
  const T* V = static_cast<const T*>(args.V_data) + kv;  // [Nkv, D]
  const float sign = shape.scale < 0 ? -1 : 1;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int i = row + 8 * r;
    const int seen = i < shape.Nq ? visible<Config>(shape, i) : 0;
    const T* q = static_cast<const T*>(args.Q_data) + (std::size_t(work.bh) * shape.Nq + i) * D;
    const float m_scaled = rows.m[r] == -INFINITY ? 0 : rows.m[r] * scale_log2;
#pragma unroll
    for (int c = 0; c < size<1>(O); ++c) O(r, c) = 0;
#pragma unroll 1
    for (int j = 0; j < shape.Nkv; ++j) {
      float s = 0;
#pragma unroll 1
      for (int d = lane % 4; d < D && j < seen; d += 4) s += float(q[d]) * float(K[j * D + d]);
      s = quad_sum(s) * sign;
      if (j >= seen) continue;
      const float p = float(T(fast_exp2(s * scale_log2 - m_scaled)));
#pragma unroll
      for (int c = 0; c < size<1>(O); ++c) {
        O(r, c) += p * float(V[j * D + c / 2 * 8 + c % 2 + lane % 4 * 2]);
      }
    }
  }
}

// Named barriers, plus a warpgroup's number: its turn at the tensor cores; its O is in shared
// memory.
constexpr int kTurn = 1, kStore = 4;

// A computing warpgroup's life.
template <typename Config>
__device__ __forceinline__ void compute_tiles(const Sm90Arguments& args,
                                              const Sm90Shared<Config>& shared, int warpgroup) {
  constexpr int D = Config::D, BLOCK_M = Config::BLOCK_M, BLOCK_N = Config::BLOCK_N;
  constexpr int WARPGROUPS = Config::WARPGROUPS;
  constexpr float LN_2 = 0.69314718056f, LOG2_E = 1.44269504089f;
  const KernelShape& shape = args.shape;
  // A larger product is a larger score: where the scale is negative, Q's sign is turned. Not quite
  // zero where the scale is: 0 · -inf is NaN.
  const float scale_log2 = fmaxf(fabsf(shape.scale) * LOG2_E, 1e-30f);
  const int thread = threadIdx.x % 128, lane = thread % 32;

  // Shared memory, and the descriptors that tell the tensor cores where in it to read.
  const auto my_rows = [&](typename Config::QTile& tile) {  // of [BLOCK_M, D]
    return local_tile(make_tensor(make_smem_ptr(tile.data), typename Config::SmemQ{}),
                      Shape<_64, Int<D>>{}, make_coord(warpgroup, 0));
  };
  Tensor sQ = my_rows(shared.Q);  // (64, D)
  Tensor sO = my_rows(shared.O);  // (64, D)
  const Tensor sK =
      make_tensor(make_smem_ptr(shared.K[0].data), typename Config::SmemK{});  // (N, D, stages)
  const Tensor sVt =
      make_tensor(make_smem_ptr(shared.V[0].data), typename Config::SmemVt{});  // (D, N, stages)
  typename Config::MmaQK mma_qk;
  typename Config::MmaPV mma_pv;
  const auto qk_thread = mma_qk.get_slice(thread);
  const auto pv_thread = mma_pv.get_slice(thread);
  const Tensor tSrQ = qk_thread.partition_fragment_A(sQ);   // (1, 1, D/16)
  const Tensor tSrK = qk_thread.partition_fragment_B(sK);   // (1, 1, D/16, stages)
  const Tensor tOrV = pv_thread.partition_fragment_B(sVt);  // (1, 1, N/16, stages)

  // Registers.
  Tensor tOrO = partition_fragment_C(mma_pv, Shape<_64, Int<D>>{});  // ((2, 2, D/8), 1, 1)
  Tensor tOrP = make_tensor<typename Config::T>(
      partition_shape_A(mma_pv, Shape<_64, Int<BLOCK_N>>{}));  // ((2, 2, 2), 1, N/16)
  Tensor O = by_rows(tOrO);                                    // (2, (2, D/8))
  RowState rows;

  Ring<Config::K_STAGES> K_at;
  Ring<Config::V_STAGES> V_at;
  Ring<1> Q_at, work_at;
  auto& barriers = shared.barriers;
  const auto release = [&](std::uint64_t& empty) {  // this warpgroup is done with the buffer
    if (thread == 0) mbarrier_arrive(&empty);
  };

  // Ping-pong: the warpgroups start their products in turn, so that one computes exponentials while
  // the other multiplies.
  const auto wait_turn = [&] {
    if constexpr (Config::STEPS.ping_pong) named_barrier_sync(kTurn + warpgroup, 256);
  };
  const auto pass_turn = [&] {
    const int next = warpgroup + 1 == WARPGROUPS ? 0 : warpgroup + 1;
    if constexpr (Config::STEPS.ping_pong) named_barrier_arrive(kTurn + next, 256);
  };
  if (warpgroup == WARPGROUPS - 1) pass_turn();  // warpgroup 0 begins

  // Without a copying warp, thread 0 copies too: a tile ahead.
  Loader<Config> loader{args, shared};
  const bool copies = !Config::STEPS.specialised && threadIdx.x == 0;

  Work work = work_of<Config>(args, blockIdx.x);
  while (work.key_tiles > 0) {
    const int row0 = work.row0 + warpgroup * 64;         // the warpgroup's first row
    const int row = row0 + thread / 32 * 16 + lane / 4;  // the thread's are this and row + 8
    const int seen[2] = {visible<Config>(shape, row), visible<Config>(shape, row + 8)};
    const int whole =
        max(0, visible<Config>(shape, row0)) / BLOCK_N;  // tiles that all rows see all of
    // The warpgroup's own tiles of keys: later ones are for later rows. 0: its rows are beyond Nq.
    const int key_tiles =
        row0 < shape.Nq ? tiles_seen_by<Config>(shape, min(row0 + 64, shape.Nq) - 1) : 0;
    int j = work.key_tiles - 1;

    // The steps of the loop, phase by phase.
    const auto start_loads = [&] {  // of what the step after this one needs
      if (copies && j > 0) loader.load_K(j - 1);
      if (copies) loader.load_V(j);
    };
    const auto start_S = [&](auto& tSrS) {  // S [64, N] = Q Kᵀ
      start_product<true>(mma_qk, tSrQ, tSrK(_, _, _, K_at.stage), tSrS);
    };
    const auto wait_K = [&] { mbarrier_wait(&barriers.K_full[K_at.stage], K_at.lap); };
    const auto wait_V = [&] { mbarrier_wait(&barriers.V_full[V_at.stage], V_at.lap); };
    const auto release_K = [&] {
      release(barriers.K_empty[K_at.stage]);
      K_at.next();
    };
    const auto release_V = [&] {
      release(barriers.V_empty[V_at.stage]);
      V_at.next();
    };
    const auto start_O = [&] {  // O [64, D] += P V
      wait_V();
      start_product<false>(mma_pv, tOrP, tOrV(_, _, _, V_at.stage), tOrO);
    };
    const auto wait_O = [&] {
      wgmma_wait<0>();
      warpgroup_fence_operand(tOrO);
      release_V();
    };
    const auto mask = [&](auto& S) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int limit = seen[r] - j * BLOCK_N - thread % 4 * 2;
#pragma unroll
        for (int c = 0; c < size<1>(S); ++c) {
          if (c / 2 * 8 + c % 2 >= limit) S(r, c) = -INFINITY;
        }
      }
    };
    const auto rescale_O = [&] {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int d = 0; d < size<1>(O); ++d) O(r, d) *= rows.rescale[r];
      }
    };

    if (copies) {
      loader.work = work;
      loader.load_K(j);
      loader.load_Q();
    }
    mbarrier_wait(&barriers.Q_full, Q_at.lap);
    Q_at.next();
    if (shape.scale < 0) {
      for (int i = thread; i < 64 * D; i += 128) sQ(i / D, i % D) = -sQ(i / D, i % D);
      fence_proxy_async();                          // WGMMA shall see what threads have written
      named_barrier_sync(kStore + warpgroup, 128);  // all of Q is turned
    }
    clear(tOrO);
    rows = RowState{};

    // Tiles that only the other warpgroups need.
#pragma unroll 1
    for (; j >= key_tiles; --j) {
      start_loads();
      wait_K();
      release_K();
      if (Config::STEPS.overlap && j > 0) {
        wait_turn();
        pass_turn();
      }
      wait_V();
      release_V();
    }
    if (key_tiles == 0) {
      release(barriers.Q_empty);
    } else {
      if constexpr (!Config::STEPS.overlap) {
        // One thing after the other.
        const auto step = [&](auto masked) {
          start_loads();
          Tensor tSrS = partition_fragment_C(mma_qk, Shape<_64, Int<BLOCK_N>>{});
          Tensor S = by_rows(tSrS);  // (2, (2, N/8))
          wait_K();
          start_S(tSrS);
          wgmma_wait<0>();
          warpgroup_fence_operand(tSrS);
          release_K();
          if constexpr (decltype(masked)::value) mask(S);
          if (row_maxima<Config::STEPS.lazy_rescale>(S, rows, scale_log2)) rescale_O();
          exponentials(S, rows, scale_log2);
          round_to(tOrP, tSrS);
          start_O();
          wait_O();
        };
#pragma unroll 1
        for (; j >= whole; --j) step(true_type{});
#pragma unroll 1
        for (; j >= 0; --j) step(false_type{});
        if (Config::O_HAS_ROOM) release(barriers.Q_empty);
      } else {
        // [snippet overlap]
        // S and P of the first tile have nothing to hide under.
        {
          Tensor tSrS = partition_fragment_C(mma_qk, Shape<_64, Int<BLOCK_N>>{});
          Tensor S = by_rows(tSrS);  // (2, (2, N/8))
          wait_K();
          start_S(tSrS);
          wgmma_wait<0>();
          warpgroup_fence_operand(tSrS);
          release_K();
          if (j >= whole) mask(S);
          row_maxima<false>(S, rows, scale_log2);
          exponentials(S, rows, scale_log2);
          round_to(tOrP, tSrS);
        }
        // O += P V of tile j, under which S and P of tile j - 1 are made.
        const auto step = [&](auto masked) {
          start_loads();
          Tensor tSrS = partition_fragment_C(mma_qk, Shape<_64, Int<BLOCK_N>>{});
          Tensor S = by_rows(tSrS);
          wait_K();
          wait_turn();
          start_S(tSrS);
          start_O();
          pass_turn();
          wgmma_wait<1>();  // S is there, O on its way
          warpgroup_fence_operand(tSrS);
          release_K();
          --j;
          if constexpr (decltype(masked)::value) mask(S);
          const bool moved = row_maxima<Config::STEPS.lazy_rescale>(S, rows, scale_log2);
          exponentials(S, rows, scale_log2);
          wait_O();
          round_to(tOrP, tSrS);
          if (moved) rescale_O();
        };
#pragma unroll 1
        while (j > whole) step(true_type{});
#pragma unroll 1
        while (j > 0) step(false_type{});
        if (Config::O_HAS_ROOM) release(barriers.Q_empty);
        if (copies) loader.load_V(0);
        start_O();
        // [/snippet]
      }

      // Epilogue: O / l, LSE = m · scale + ln l.
      float one_over_l[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float l = quad_sum(rows.l[r]);
        one_over_l[r] = l == 0 ? 0 : 1 / l;
        if (args.LSE && thread % 4 == 0 && row + 8 * r < shape.Nq) {
          args.LSE[std::size_t(work.bh) * shape.Nq + row + 8 * r] =
              l == 0 ? -INFINITY : (rows.m[r] * scale_log2 + log2f(l)) * LN_2;
        }
      }
      if constexpr (Config::STEPS.overlap) wait_O();
      if constexpr (Config::CAUSAL) {
        without_leaks<Config>(O, rows, row, work, args, scale_log2);
      }
#pragma unroll
      for (int r = 0; r < 2; ++r) {
#pragma unroll
        for (int d = 0; d < size<1>(O); ++d) {
          // A row that sees no key: zero whatever V holds, which 0 · NaN is not.
          O(r, d) = one_over_l[r] == 0 ? 0 : O(r, d) * one_over_l[r];
        }
      }
      Tensor tOrO_rounded = make_fragment_like<typename Config::T>(tOrO);
      round_to(tOrO_rounded, tOrO);

      // O leaves through shared memory, under the next tile's products.
      if constexpr (Config::O_HAS_ROOM) {
        if (thread == 0) bulk_store_wait_read<0>();
        named_barrier_sync(kStore + warpgroup, 128);  // the O before this one has left
      }
      const auto put_O = make_tiled_copy_C(Copy_Atom<StMatrix, typename Config::T>{}, mma_pv);
      const auto put_O_thread = put_O.get_slice(thread);
      Tensor tOsO = put_O_thread.partition_D(sO);
      copy(put_O, put_O_thread.retile_S(tOrO_rounded), tOsO);
      fence_proxy_async();                          // TMA shall see what threads have written
      named_barrier_sync(kStore + warpgroup, 128);  // all of O is written
      if (thread == 0) {
#pragma unroll
        for (int s = 0; s < Config::SLABS; ++s) {  // what is beyond Nq is not written
          tma_store(args.O, &shared.O.data[(s * BLOCK_M + warpgroup * 64) * 64],
                    {s * 64, row0, work.head, work.batch});
        }
        bulk_store_commit();
        if constexpr (!Config::O_HAS_ROOM) {
          bulk_store_wait_read<0>();
          mbarrier_arrive(&barriers.Q_empty);
        }
      }
    }

    if constexpr (!Config::STEPS.persistent) break;
    mbarrier_wait(&barriers.work_full, work_at.lap);
    work = shared.next_work;
    mbarrier_arrive(&barriers.work_empty);
    work_at.next();
  }
  if (thread == 0) bulk_store_wait_read<0>();  // shared memory must outlive the copy
}

// [snippet kernel]
template <typename Config>
__global__ void __launch_bounds__(Config::THREADS, 1)
    flash_sm90(const __grid_constant__ Sm90Arguments args) {
  if constexpr (kHasWgmma) {
    constexpr int WARPGROUPS = Config::WARPGROUPS;
    SharedArena arena;
    auto& Q = arena.take<typename Config::QTile>("Q_smem");
    auto& K = arena.take<typename Config::KTile[Config::K_STAGES]>("K_smem");
    auto& V = arena.take<typename Config::KTile[Config::V_STAGES]>("V_smem");
    auto& barriers = arena.take<typename Config::Barriers>("barriers");
    auto& next_work = arena.take<Work>("next_work");
    typename Config::QTile* O = &Q;
    if constexpr (Config::O_HAS_ROOM) O = &arena.take<typename Config::QTile>("O_smem");
    const Sm90Shared<Config> shared{Q, K, V, *O, barriers, next_work};

    if (threadIdx.x == 0) {
      mbarrier_init(&barriers.Q_full, 1);
      mbarrier_init(&barriers.Q_empty, WARPGROUPS);
      for (int s = 0; s < Config::K_STAGES; ++s) {
        mbarrier_init(&barriers.K_full[s], 1);
        mbarrier_init(&barriers.K_empty[s], WARPGROUPS);
      }
      for (int s = 0; s < Config::V_STAGES; ++s) {
        mbarrier_init(&barriers.V_full[s], 1);
        mbarrier_init(&barriers.V_empty[s], WARPGROUPS);
      }
      mbarrier_init(&barriers.work_full, 1);
      mbarrier_init(&barriers.work_empty, WARPGROUPS * 128);
      fence_mbarrier_init();
    }
    __syncthreads();  // the barriers are there before anyone uses them

    // The same for all threads of a warp; the shuffle lets the compiler know.
    const int warp = __shfl_sync(0xffffffff, threadIdx.x / 32, 0);
    if constexpr (!Config::STEPS.specialised) {
      compute_tiles<Config>(args, shared, warp / 4);
    } else if (warp / 4 == WARPGROUPS) {
      setmaxnreg_dec<Config::COPY_REGISTERS>();
      if (warp == WARPGROUPS * 4 && is_elected()) copy_tiles<Config>(args, shared);
    } else {
      setmaxnreg_inc<Config::COMPUTE_REGISTERS>();
      compute_tiles<Config>(args, shared, warp / 4);
    }
  }
}
// [/snippet]

template <typename Config>
void launch_flash_sm90_config(const Problem& p, const Arguments& a, Stream stream,
                              const TileOrder& order) {
  constexpr TensorElement ELEMENT =
      std::is_same_v<typename Config::T, half_t> ? TensorElement::f16 : TensorElement::bf16;
  // Boxes of `rows` x 64 columns of [B, heads, N, D].
  const auto map = [&](const void* data, int heads, int N, int rows) {
    const std::uint64_t row = Config::D * sizeof(typename Config::T);
    return make_tensor_map(
        data, ELEMENT,
        {.sizes = {Config::D, std::uint64_t(N), std::uint64_t(heads), std::uint64_t(p.batch)},
         .strides = {row, row * N, row * N * heads},
         .box = {64, std::uint32_t(rows), 1, 1}},
        Swizzle::b128);
  };
  const Sm90Arguments args{.Q = map(a.q, p.heads, p.seq, 64),
                           .K = map(a.k, p.kv_heads, p.kv_seq, Config::BLOCK_N),
                           .V = map(a.v, p.kv_heads, p.kv_seq, Config::BLOCK_N),
                           .O = map(a.out, p.heads, p.seq, 64),
                           .Q_data = a.q,
                           .K_data = a.k,
                           .V_data = a.v,
                           .LSE = a.lse,
                           .counter = static_cast<int*>(a.workspace),
                           .shape = KernelShape(p),
                           .order = order};
  const int blocks =
      Config::STEPS.persistent ? std::min(order.tiles(), device().sms) : order.tiles();
  launch(flash_sm90<Config>,
         {.name = "flash_sm90",
          .grid = dim3(blocks),
          .block = dim3(Config::THREADS),
          .shared_bytes = Config::SHARED,
          .stream = stream},
         args);
}

template <typename T, int D, bool CAUSAL, Sm90Steps STEPS>
void launch_flash_sm90_as(const Problem& p, const Arguments& a, Stream stream) {
  using Config = Sm90Config<T, D, CAUSAL, best_tile(D, CAUSAL), STEPS>;
  launch_flash_sm90_config<Config>(p, a, stream, sm90_order(p, Config::BLOCK_M, device()));
}

template <int D>
void launch_flash_sm90(const Problem& p, const Arguments& a, Stream stream) {
  const auto with = [&]<typename T>(T) {
    p.causal ? launch_flash_sm90_as<T, D, true, best_steps(D)>(p, a, stream)
             : launch_flash_sm90_as<T, D, false, best_steps(D)>(p, a, stream);
  };
  p.dtype == DType::fp16 ? with(half_t{}) : with(bfloat16_t{});
}

}  // namespace al::cute_attention
