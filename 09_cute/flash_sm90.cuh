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
// the loop after them knows no mask.
#pragma once

#include <algorithm>

#include "09_cute/sm90_config.cuh"
#include "09_cute/sm90_softmax.cuh"
#include "common/launch.cuh"
#include "common/ptx/named_barrier.cuh"
#include "common/ptx/setmaxnreg.cuh"
#include "common/ptx/tma.cuh"

namespace al::cute_attention {

using namespace cute;
using cute::Tensor;  // not al::Tensor

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
        tma_load<L2Hint::evict_first>(
            &shared.Q.data[(s * Config::BLOCK_M + w * 64) * 64], args.Q, &barriers.Q_full,
            {s * 64, 0, (work.row0 + w * 64) >> args.shape.packed, work.head, work.batch});
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
      if (given == args.order.tiles() - 1) atomicExch(args.counter, 0);
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
  const Sm90Shape& shape = args.shape;
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
    // The warpgroup's own tiles of keys: later ones are for later rows. 0: it has no rows.
    const int key_tiles =
        row0 < work.end ? tiles_seen_by<Config>(shape, min(row0 + 64, work.end) - 1) : 0;
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
        if (rows.moved[r]) {
#pragma unroll
          for (int d = 0; d < size<1>(O); ++d) O(r, d) *= rows.rescale[r];
        }
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

    // Tiles that only the other warpgroups need. WGMMA would hold the four warps together; here a
    // barrier does: without it warp 0 could give buffers back until a late warp's wait is for a
    // phase two laps old, of which parity cannot tell that it is over.
    const auto all_have_seen_it = [&] { named_barrier_sync(kStore + warpgroup, 128); };
#pragma unroll 1
    for (; j >= key_tiles; --j) {
      start_loads();
      wait_K();
      all_have_seen_it();
      release_K();
      if (Config::STEPS.overlap && j > 0) {
        wait_turn();
        pass_turn();
      }
      wait_V();
      all_have_seen_it();
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
          row_maxima<Config::LAG>(S, rows, scale_log2);
          rescale_O();
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
          row_maxima<-1>(S, rows, scale_log2);
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
          row_maxima<Config::LAG>(S, rows, scale_log2);
          exponentials(S, rows, scale_log2);
          wait_O();
          round_to(tOrP, tSrS);
          rescale_O();
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
          args.LSE[shape.row_of(work.bh, row + 8 * r)] =
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
                    {s * 64, 0, row0 >> shape.packed, work.head, work.batch});
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

// `packed`: log2 of the query heads that a tile takes together, which share keys. `order` counts
// each such lot as one head.
template <typename Config>
void launch_flash_sm90_config(const Problem& p, const Arguments& a, Stream stream,
                              const TileOrder& order, int packed = 0) {
  constexpr TensorElement ELEMENT =
      std::is_same_v<typename Config::T, half_t> ? TensorElement::f16 : TensorElement::bf16;
  constexpr std::uint64_t D = Config::D, ROW = D * sizeof(typename Config::T);
  const std::uint64_t B = p.batch, Hq = p.heads, Hkv = p.kv_heads, Nq = p.seq, Nkv = p.kv_seq;
  const std::uint64_t together = 1u << packed;
  const auto queries = [&](const void* data) {
    return make_tensor_map(data, ELEMENT,
                           {.sizes = {D, together, Nq, Hq >> packed, B},
                            .strides = {ROW * Nq, ROW, ROW * Nq << packed, ROW * Nq * Hq},
                            .box = {64, 1u << packed, 64u >> packed, 1, 1}},
                           Swizzle::b128);
  };
  const auto keys = [&](const void* data) {
    return make_tensor_map(data, ELEMENT,
                           {.sizes = {D, Nkv, Hkv, B},
                            .strides = {ROW, ROW * Nkv, ROW * Nkv * Hkv},
                            .box = {64, Config::BLOCK_N, 1, 1}},
                           Swizzle::b128);
  };
  const Sm90Arguments args{.Q = queries(a.q),
                           .O = queries(a.out),
                           .K = keys(a.k),
                           .V = keys(a.v),
                           .Q_data = a.q,
                           .K_data = a.k,
                           .V_data = a.v,
                           .LSE = a.lse,
                           .counter = static_cast<int*>(a.workspace),
                           .shape = Sm90Shape(p, packed),
                           .order = order};
  const int tiles = order.tiles();
  launch(flash_sm90<Config>,
         {.name = "flash_sm90",
          .grid = dim3(Config::STEPS.persistent ? std::min(tiles, device().sms) : tiles),
          .block = dim3(Config::THREADS),
          .shared_bytes = Config::SHARED,
          .stream = stream},
         args);
}

template <typename T, int D, bool CAUSAL, bool LONG_KEYS, Sm90Steps STEPS>
void launch_flash_sm90_as(const Problem& p, const Arguments& a, Stream stream, int packed = 0) {
  using Config = Sm90Config<T, D, CAUSAL, best_tile(D, CAUSAL, LONG_KEYS), STEPS>;
  Problem as_packed = p;
  as_packed.heads >>= packed, as_packed.seq <<= packed;
  launch_flash_sm90_config<Config>(p, a, stream, sm90_order(as_packed, Config::BLOCK_M, device()),
                                   packed);
}

template <int D>
void launch_flash_sm90(int packed, const Problem& p, const Arguments& a, Stream stream) {
  const auto with = [&]<typename T, bool CAUSAL>(T, bool_constant<CAUSAL>) {
    constexpr Sm90Steps STEPS = best_steps(D);
    long_keys(D, p.kv_seq) ? launch_flash_sm90_as<T, D, CAUSAL, true, STEPS>(p, a, stream, packed)
                           : launch_flash_sm90_as<T, D, CAUSAL, false, STEPS>(p, a, stream, packed);
  };
  const auto as = [&](auto t) { p.causal ? with(t, true_type{}) : with(t, false_type{}); };
  p.dtype == DType::fp16 ? as(half_t{}) : as(bfloat16_t{});
}

}  // namespace al::cute_attention
