// FlashAttention as a Hopper GPU likes it, in CuTe: TMA copies whole tiles, WGMMA multiplies them
// straight from shared memory, both run by themselves, and the warps of a block have professions.
//
//   Q [B·Hq, Nq, D]   K, V [B·Hkv, Nkv, D]   O [B·Hq, Nq, D]   LSE [B·Hq, Nq]
//
// A block computes BLOCK_M rows of O, 64 for each of its computing warpgroups (128 threads; what
// one WGMMA takes). One more warpgroup, of which a single thread works, starts the copies. They
// meet at barriers in shared memory:
//
//   copying thread    Q ──►  K₃ ──► K₂ V₃ ──► K₁ V₂ ──► …    waits until a buffer is empty
//   warpgroup 0, 1         S₃    S₂ O₃     S₁ O₂      …      wait until a buffer is full
//
// Keys are walked in tiles of BLOCK_N, the last tile first: the masked ones come first then, and
// the loop after them knows no mask. The softmax is that of flash_sm80.cuh.
#pragma once

#include <cuda.h>

#include <cutlass/arch/barrier.h>
#include <cutlass/arch/reg_reconfig.h>
#include <cutlass/numeric_conversion.h>
#include <cutlass/numeric_types.h>
#include <cute/arch/cluster_sm90.hpp>
#include <cute/arch/copy_sm90_desc.hpp>
#include <cute/arch/copy_sm90_tma.hpp>
#include <cute/tensor.hpp>

namespace al::cute_attention {

using namespace cute;
using cute::Tensor;  // not al::Tensor

// What the kernel does beyond the plain loop. The chapter's table turns them on one by one.
// [snippet steps]
struct Steps {
  bool specialised = true;   // a warp of its own starts the copies
  bool overlap = true;       // the next S and the last O are multiplied under this softmax
  bool ping_pong = true;     // the warpgroups take turns at the tensor cores
  bool persistent = true;    // a block takes tile after tile ...
  bool counted = true;       // ... from a counter, as it gets free, and not by its index
  bool lazy_rescale = true;  // O is rescaled only when the maximum has moved by 2^8
  int polynomial = 0;        // of 16 exponentials, so many are computed on the FMA units
  bool early_exp = false;
  int k_stages = 2, v_stages = 2;
  bool grouped = true;
  int hint = 0;
  bool skip = true;  // a warpgroup leaves out the tiles that none of its rows sees
};
// [/snippet]

template <typename Element_, int D_, int BLOCK_M_, int BLOCK_N_, bool CAUSAL_, Steps STEPS_>
struct Sm90Config {
  using Element = Element_;
  static constexpr int D = D_, BLOCK_M = BLOCK_M_, BLOCK_N = BLOCK_N_;
  static constexpr bool CAUSAL = CAUSAL_;
  static constexpr Steps STEPS = STEPS_;
  static constexpr int K_STAGES = STEPS.k_stages, V_STAGES = STEPS.v_stages;
  static constexpr int WARPGROUPS = BLOCK_M / 64;  // that compute
  static constexpr int THREADS = 128 * (WARPGROUPS + (STEPS.specialised ? 1 : 0));
  // The block's registers, dealt anew: the copying warpgroup needs few.
  static constexpr int COPY_REGISTERS = WARPGROUPS == 2 ? 24 : 32;
  static constexpr int COMPUTE_REGISTERS = WARPGROUPS == 2 ? 240 : 160;

  // Shared memory in boxes of 8 rows x 128 bytes, swizzled as TMA writes and WGMMA reads them. A
  // row of a tile is D / 64 boxes wide, and each such column of boxes, a slab, is one copy.
  static constexpr int SLABS = D / 64;
  using Box = GMMA::Layout_K_SW128_Atom<Element>;
  using SmemQ = decltype(tile_to_shape(Box{}, Shape<Int<BLOCK_M>, Int<D>>{}));
  using SmemK = decltype(tile_to_shape(Box{}, Shape<Int<BLOCK_N>, Int<D>, Int<K_STAGES>>{}));
  using SmemV = decltype(tile_to_shape(Box{}, Shape<Int<BLOCK_N>, Int<D>, Int<V_STAGES>>{}));
  // V is stored as it comes, [BLOCK_N, D]; the product wants to see [D, BLOCK_N].
  using SmemVt =
      decltype(composition(SmemV{}, Layout<Shape<Int<D>, Int<BLOCK_N>, Int<V_STAGES>>,
                                           Stride<Int<BLOCK_N>, _1, Int<BLOCK_N * D>>>{}));

  // A warpgroup's products: S [64, BLOCK_N] = Q Kᵀ, both from shared memory; O [64, D] += P V, with
  // P from registers.
  using MmaQK = decltype(make_tiled_mma(
      GMMA::ss_op_selector<Element, Element, float, Shape<_64, Int<BLOCK_N>, Int<D>>>()));
  using MmaPV = decltype(make_tiled_mma(
      GMMA::rs_op_selector<Element, Element, float, Shape<_64, Int<D>, Int<BLOCK_N>>,
                           GMMA::Major::K, GMMA::Major::MN>()));

  static constexpr int Q_BYTES = BLOCK_M * D * 2, K_BYTES = BLOCK_N * D * 2;
  // On its way out, O has room of its own where there is any; else it goes where Q lay.
  static constexpr bool O_HAS_ROOM =
      2 * Q_BYTES + (K_STAGES + V_STAGES) * K_BYTES + 1024 <= 227 * 1024;
};

// A tile of O, and what it takes.
struct Work {
  int bh, batch, head, row0;
  int key_tiles;  // 0: there is no more work
};

template <typename Config>
struct Sm90Shared {
  using Element = typename Config::Element;
  static constexpr int K_STAGES = Config::K_STAGES, V_STAGES = Config::V_STAGES;
  alignas(1024) Element Q[Config::BLOCK_M * Config::D];
  alignas(1024) Element K[K_STAGES][Config::BLOCK_N * Config::D];
  alignas(1024) Element V[V_STAGES][Config::BLOCK_N * Config::D];
  alignas(1024) Element O[Config::O_HAS_ROOM ? Config::BLOCK_M * Config::D : 8];
  uint64_t Q_full, Q_empty;
  uint64_t K_full[K_STAGES], K_empty[K_STAGES], V_full[V_STAGES], V_empty[V_STAGES];
  uint64_t work_full, work_empty;
  Work work;
};

struct Sm90Arguments {
  CUtensorMap Q, K, V, O;  // [D, N, H, B]
  float* LSE;              // [B, Hq, Nq] or nullptr
  int* counter;            // 0 at the start; STEPS.counted
  int Nq, Nkv, heads, group, batch_heads;
  int heads_together;  // query heads whose K and V fit in L2 together
  int tiles_m;
  float scale_log2;
};

template <typename Config>
__device__ Work work_of(const Sm90Arguments& p, int tile) {
  if (tile >= p.tiles_m * p.batch_heads) return {.key_tiles = 0};
  const int together = p.heads_together * p.tiles_m;
  const int first = tile / together * p.heads_together;
  const int heads_here = min(p.heads_together, p.batch_heads - first);
  const int rest = tile % together;
  Work work;
  work.bh = first + rest % heads_here;
  work.batch = work.bh / p.heads;
  work.head = work.bh % p.heads;
  work.row0 = (p.tiles_m - 1 - rest / heads_here) * Config::BLOCK_M;
  const int last = min(work.row0 + Config::BLOCK_M, p.Nq);
  const int keys = Config::CAUSAL ? last + p.Nkv - p.Nq : p.Nkv;
  // At least one: rows that see no key are masked, and their zeros written, like all others.
  work.key_tiles = max(1, (keys + Config::BLOCK_N - 1) / Config::BLOCK_N);
  return work;
}

// A place in a ring of buffers: which one, and whether the lap is odd. A barrier's phase ends with
// each lap; waiting for the parity of a lap waits for the end of that lap's phase.
template <int STAGES>
struct Ring {
  int stage = 0;
  uint32_t lap = 0;
  __device__ void next() {
    if (++stage == STAGES) {
      stage = 0;
      lap ^= 1;
    }
  }
};

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 2^x without the special-function unit: x = n + f with n whole and |f| <= 1/2. The cubic's largest
// relative error is 1e-4, a fifth of what rounding to fp16 costs.
__device__ __forceinline__ float exp2_polynomial(float x) {
  x = fmaxf(x, -127.0f);                  // 2^-127 comes out as 0
  const float shifted = x + 12582912.0f;  // 1.5 · 2^23: the low bits are now n
  const float f = x - (shifted - 12582912.0f);
  float y = fmaf(f, 0.05550410866f, 0.2402265070f);
  y = fmaf(f, y, 0.6931471806f);
  y = fmaf(f, y, 1.0f);
  return __int_as_float(__float_as_int(y) + (__float_as_int(shifted) << 23));
}

// Starts c = a b (ZERO) or c += a b. The tensor cores read and write behind the program's back
// until warpgroup_wait(): c must not be touched before, nor a if it is in registers.
template <bool ZERO, typename Mma, typename A, typename B, typename C>
__device__ __forceinline__ void start_multiply(Mma& mma, const A& a, const B& b, C& c) {
  warpgroup_fence_operand(c);
  warpgroup_arrive();
  mma.accumulate_ = ZERO ? GMMA::ScaleOut::Zero : GMMA::ScaleOut::One;
  CUTE_UNROLL
  for (int k = 0; k < size<2>(a); ++k) {
    gemm(mma, a(_, _, k), b(_, _, k), c);
    mma.accumulate_ = GMMA::ScaleOut::One;
  }
  warpgroup_commit_batch();
  warpgroup_fence_operand(c);
}

// An accumulator ((2, 2, N/8), 1, 1) as the matrix it is to the softmax: the thread's two rows, 8
// apart, and their columns (2, (2, N/8)).
template <typename Fragment>
__device__ __forceinline__ auto by_rows(Fragment& c) {
  const auto l = c.layout();
  return make_tensor(c.data(), make_layout(get<0, 1>(l), make_layout(get<0, 0>(l), get<0, 2>(l))));
}

// Rounds a fragment, two elements an instruction. Their order stays: what WGMMA leaves of 16
// columns of its result is what it wants of 16 columns of its A operand.
template <typename Element, typename From, typename To>
__device__ __forceinline__ void round_to(To& to, const From& from) {
  using Pair = cutlass::Array<Element, 2>;
  cutlass::NumericArrayConverter<Element, float, 2> narrow;
  auto* out = reinterpret_cast<Pair*>(raw_pointer_cast(to.data()));
  auto* in = reinterpret_cast<const cutlass::Array<float, 2>*>(raw_pointer_cast(from.data()));
  CUTE_UNROLL
  for (int i = 0; i < size(from) / 2; ++i) out[i] = narrow(in[i]);
}

// Over the four lanes that share a row.
__device__ __forceinline__ float quad_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffff, x, 1);
  return x + __shfl_xor_sync(0xffffffff, x, 2);
}

// The softmax so far of a thread's two rows.
struct Rows {
  float m[2];        // largest score, before it is scaled
  float l[2];        // this thread's part of the sum
  float rescale[2];  // what O must be multiplied by
};

// S becomes P, in place. Returns whether O must be rescaled.
// [snippet softmax]
template <typename Config, bool FIRST, typename Scores>
__device__ __forceinline__ bool softmax(Scores& S, Rows& row, float scale_log2) {
  constexpr int COLUMNS = decltype(size<1>(S))::value;
  float m[2];
  CUTE_UNROLL
  for (int r = 0; r < 2; ++r) {
    m[r] = FIRST ? S(r, 0) : fmaxf(row.m[r], S(r, 0));
    CUTE_UNROLL
    for (int c = 1; c < COLUMNS; ++c) m[r] = fmaxf(m[r], S(r, c));
    m[r] = quad_max(m[r]);
  }
  bool moved = true;
  if (!FIRST && Config::STEPS.lazy_rescale) {
    // A maximum that lags behind is as good as long as nothing overflows: P and l grow by the same
    // factor, 2^8 at most.
    const bool far = (m[0] - row.m[0]) * scale_log2 > 8 || (m[1] - row.m[1]) * scale_log2 > 8;
    moved = __any_sync(0xffffffff, far);
    if (!moved) m[0] = row.m[0], m[1] = row.m[1];
  }
  CUTE_UNROLL
  for (int r = 0; r < 2; ++r) {
    const float m_scaled = m[r] == -INFINITY ? 0 : m[r] * scale_log2;
    row.rescale[r] = FIRST ? 0 : exp2_fast(row.m[r] * scale_log2 - m_scaled);
    if (moved) row.l[r] = FIRST ? 0 : row.l[r] * row.rescale[r];
    row.m[r] = m[r];
    float l_odd = 0;  // two sums, so that an addition need not wait for the one before
    CUTE_UNROLL
    for (int c = 0; c < COLUMNS; ++c) {
      const float x = fmaf(S(r, c), scale_log2, -m_scaled);
      S(r, c) = c % 16 < Config::STEPS.polynomial ? exp2_polynomial(x) : exp2_fast(x);
      (c % 2 ? l_odd : row.l[r]) += S(r, c);
    }
    row.l[r] += l_odd;
  }
  return moved;
}
// [/snippet]

// Starts the copies; one thread's work.
template <typename Config>
struct Loader {
  using Element = typename Config::Element;
  const Sm90Arguments& p;
  Sm90Shared<Config>& shared;
  Ring<Config::K_STAGES> K_at;
  Ring<Config::V_STAGES> V_at;
  Ring<1> Q_at;
  int batch = 0, head = 0, kv_head = 0, row0 = 0;

  __device__ void set(const Work& work) {
    batch = work.batch;
    head = work.head;
    kv_head = work.head / p.group;
    row0 = work.row0;
  }

  __device__ void load(const CUtensorMap& map, uint64_t& barrier, void* to, int d, int n, int h) {
    SM90_TMA_LOAD_4D::copy(
        &map, &barrier,
        static_cast<uint64_t>(Config::STEPS.hint == 0 ? TMA::CacheHintSm90::EVICT_NORMAL
                              : &map == &p.Q          ? TMA::CacheHintSm90::EVICT_FIRST
                                                      : TMA::CacheHintSm90::EVICT_LAST),
        to, d, n, h, batch);
  }

  __device__ void load_Q() {
    wait_barrier(shared.Q_empty, Q_at.lap ^ 1);
    set_barrier_transaction_bytes(shared.Q_full, Config::Q_BYTES);
#pragma unroll 1
    for (int w = 0; w < Config::WARPGROUPS; ++w) {  // in the pieces that O is stored in
      for (int s = 0; s < Config::SLABS; ++s) {
        load(p.Q, shared.Q_full, shared.Q + (s * Config::BLOCK_M + w * 64) * 64, s * 64,
             row0 + w * 64, head);
      }
    }
    Q_at.next();
  }

  template <int STAGES>
  __device__ void load_tile(const CUtensorMap& map,
                            Element (&ring)[STAGES][Config::BLOCK_N * Config::D],
                            uint64_t (&full)[STAGES], uint64_t (&empty)[STAGES], Ring<STAGES>& at,
                            int j) {
    wait_barrier(empty[at.stage], at.lap ^ 1);
    set_barrier_transaction_bytes(full[at.stage], Config::K_BYTES);
    CUTE_UNROLL
    for (int s = 0; s < Config::SLABS; ++s) {
      load(map, full[at.stage], &ring[at.stage][s * Config::BLOCK_N * 64], s * 64,
           j * Config::BLOCK_N, kv_head);
    }
    at.next();
  }
  __device__ void load_K(int j) {
    load_tile(p.K, shared.K, shared.K_full, shared.K_empty, K_at, j);
  }
  __device__ void load_V(int j) {
    load_tile(p.V, shared.V, shared.V_full, shared.V_empty, V_at, j);
  }
};

template <typename Config>
__device__ __forceinline__ void copy_tiles(const Sm90Arguments& p, Sm90Shared<Config>& shared) {
  Loader<Config> loader{p, shared};
  Ring<1> work_at;
  int tile = blockIdx.x;
  Work work = work_of<Config>(p, tile);
  for (int round = 1; work.key_tiles > 0; ++round) {
    // Drawn now: its latency hides behind this tile.
    if constexpr (Config::STEPS.counted) {
      const int drawn = atomicAdd(p.counter, 1);
      tile = gridDim.x + drawn;
      // Each tile draws once: the last to draw leaves the counter as the next launch wants it.
      if (drawn == p.tiles_m * p.batch_heads - 1) *p.counter = 0;
    } else {
      // Every other round in reverse, so that long and short tiles even out.
      tile = round * gridDim.x + (round % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x);
    }
    loader.set(work);
    int j = work.key_tiles - 1;
    loader.load_K(j);
    loader.load_Q();
#pragma unroll 1
    for (; j > 0; --j) {
      loader.load_K(j - 1);
      loader.load_V(j);
    }
    loader.load_V(0);

    if constexpr (!Config::STEPS.persistent) return;
    work = work_of<Config>(p, tile);
    wait_barrier(shared.work_empty, work_at.lap ^ 1);
    shared.work = work;
    arrive_barrier(shared.work_full);
    work_at.next();
  }
}

enum NamedBarrier : uint32_t { kTurn = 1, kStore = 5 };  // plus the warpgroup's number

template <typename Config>
__device__ __forceinline__ void compute(const Sm90Arguments& p, Sm90Shared<Config>& shared,
                                        int warpgroup) {
  using Element = typename Config::Element;
  constexpr int D = Config::D, BLOCK_M = Config::BLOCK_M, BLOCK_N = Config::BLOCK_N;
  constexpr int WARPGROUPS = Config::WARPGROUPS, SLABS = Config::SLABS;
  constexpr bool TURNS = Config::STEPS.ping_pong && WARPGROUPS > 1;
  const int thread = threadIdx.x % 128;

  const auto my_rows = [&](Element* tile) {  // of [BLOCK_M, D]
    return local_tile(make_tensor(make_smem_ptr(tile), typename Config::SmemQ{}),
                      Shape<_64, Int<D>>{}, make_coord(warpgroup, 0));
  };
  Element* O_smem = Config::O_HAS_ROOM ? shared.O : shared.Q;
  const Tensor sQ = my_rows(shared.Q);                                                  // (64, D)
  const Tensor sO = my_rows(O_smem);                                                    // (64, D)
  const Tensor sK = make_tensor(make_smem_ptr(shared.K[0]), typename Config::SmemK{});  // (N, D, 2)
  const Tensor sVt =
      make_tensor(make_smem_ptr(shared.V[0]), typename Config::SmemVt{});  // (D, N, 2)

  typename Config::MmaQK mma_qk;
  typename Config::MmaPV mma_pv;
  const auto thread_qk = mma_qk.get_slice(thread);
  const auto thread_pv = mma_pv.get_slice(thread);
  // Descriptors, not data: where in shared memory the tensor cores shall read.
  const Tensor tSrQ = thread_qk.partition_fragment_A(sQ);
  const Tensor tSrK = thread_qk.partition_fragment_B(sK);
  const Tensor tOrV = thread_pv.partition_fragment_B(sVt);

  Tensor tOrO = partition_fragment_C(mma_pv, Shape<_64, Int<D>>{});  // ((2, 2, D/8), 1, 1)
  Tensor tOrP = make_tensor<Element>(
      partition_shape_A(mma_pv, Shape<_64, Int<BLOCK_N>>{}));  // ((2, 2, 2), 1, N/16)
  Tensor O = by_rows(tOrO);                                    // (2, D/4)
  const auto new_S = [&] { return partition_fragment_C(mma_qk, Shape<_64, Int<BLOCK_N>>{}); };

  const auto wait_my_turn = [&] {
    if constexpr (TURNS) cutlass::arch::NamedBarrier::sync(256, kTurn + uint32_t(warpgroup));
  };
  const auto pass_turn = [&] {
    const int next = warpgroup + 1 == WARPGROUPS ? 0 : warpgroup + 1;
    if constexpr (TURNS) cutlass::arch::NamedBarrier::arrive(256, kTurn + uint32_t(next));
  };
  const auto release = [&](uint64_t& empty) {
    if (thread == 0) arrive_barrier(empty);
  };
  if (warpgroup == WARPGROUPS - 1) pass_turn();  // warpgroup 0 begins

  Ring<Config::K_STAGES> K_at;
  Ring<Config::V_STAGES> V_at;
  Ring<1> Q_at, work_at;
  Loader<Config> loader{p, shared};  // without a copying warp, thread 0 is it
  const bool copies = !Config::STEPS.specialised && threadIdx.x == 0;

  Work work = work_of<Config>(p, blockIdx.x);
  while (work.key_tiles > 0) {
    // The thread's rows are row and row + 8; how many keys they see.
    const int row = work.row0 + warpgroup * 64 + thread / 32 * 16 + thread % 32 / 4;
    const auto visible = [&](int i) {
      return Config::CAUSAL ? min(p.Nkv, i + 1 + p.Nkv - p.Nq) : p.Nkv;
    };
    const int seen[2] = {visible(row), visible(row + 8)};
    const int row0 = work.row0 + (Config::STEPS.skip ? warpgroup * 64 : 0);
    const int whole = max(0, visible(row0)) / BLOCK_N;  // tiles that every row sees all of
    // The other warpgroups may see more keys. 0: these rows are beyond Nq.
    const int mine = !Config::STEPS.skip ? work.key_tiles
                     : row0 >= p.Nq      ? 0
                                    : max(1, ceil_div(visible(min(row0 + 64, p.Nq) - 1), BLOCK_N));
    int j = work.key_tiles - 1;
    Rows rows;

    const auto start_S = [&](auto& tSrS) {
      start_multiply<true>(mma_qk, tSrQ, tSrK(_, _, _, K_at.stage), tSrS);
    };
    const auto wait_K = [&] { wait_barrier(shared.K_full[K_at.stage], K_at.lap); };
    const auto S_is_there = [&](auto& tSrS) {
      warpgroup_fence_operand(tSrS);
      release(shared.K_empty[K_at.stage]);
      K_at.next();
    };
    const auto start_O = [&] {
      wait_barrier(shared.V_full[V_at.stage], V_at.lap);
      start_multiply<false>(mma_pv, tOrP, tOrV(_, _, _, V_at.stage), tOrO);
    };
    const auto wait_O = [&] {
      warpgroup_wait<0>();
      warpgroup_fence_operand(tOrO);
      release(shared.V_empty[V_at.stage]);
      V_at.next();
    };
    const auto mask = [&](auto& S) {  // of tile j
      CUTE_UNROLL
      for (int r = 0; r < 2; ++r) {
        const int limit = seen[r] - j * BLOCK_N - thread % 4 * 2;
        CUTE_UNROLL
        for (int c = 0; c < size<1>(S); ++c) {
          if (c / 2 * 8 + c % 2 >= limit) S(r, c) = -INFINITY;
        }
      }
    };
    const auto rescale_O = [&] {
      CUTE_UNROLL
      for (int r = 0; r < 2; ++r) {
        CUTE_UNROLL
        for (int d = 0; d < D / 4; ++d) O(r, d) *= rows.rescale[r];
      }
    };

    if (copies) {
      loader.set(work);
      loader.load_K(j);
      loader.load_Q();
    }
    wait_barrier(shared.Q_full, Q_at.lap);
    Q_at.next();
    clear(tOrO);
    if constexpr (Config::STEPS.skip) {
#pragma unroll 1
      for (; j >= mine; --j) {
        if (copies && j > 0) loader.load_K(j - 1);
        if (copies) loader.load_V(j);
        wait_K();
        release(shared.K_empty[K_at.stage]);
        K_at.next();
        if (Config::STEPS.overlap && j > 0) {
          wait_my_turn();
          pass_turn();
        }
        wait_barrier(shared.V_full[V_at.stage], V_at.lap);
        release(shared.V_empty[V_at.stage]);
        V_at.next();
      }
    }
    if (mine == 0) {
      release(shared.Q_empty);
    } else {
      if constexpr (!Config::STEPS.overlap) {
        const auto step = [&](auto first, auto masked) {
          if (copies) {
            if (j > 0) loader.load_K(j - 1);
            loader.load_V(j);
          }
          Tensor tSrS = new_S();
          wait_K();
          start_S(tSrS);
          warpgroup_wait<0>();
          S_is_there(tSrS);
          Tensor S = by_rows(tSrS);
          if constexpr (decltype(masked)::value) mask(S);
          const bool moved = softmax<Config, decltype(first)::value>(S, rows, p.scale_log2);
          round_to<Element>(tOrP, tSrS);
          if (!decltype(first)::value && moved) rescale_O();
          start_O();
          wait_O();
          --j;
        };
        step(true_type{}, true_type{});
#pragma unroll 1
        while (j >= whole) step(false_type{}, true_type{});
#pragma unroll 1
        while (j >= 0) step(false_type{}, false_type{});
        if (Config::O_HAS_ROOM) release(shared.Q_empty);
      } else {
        // S of the last tile has nothing to hide under.
        {
          Tensor tSrS = new_S();
          wait_K();
          start_S(tSrS);
          warpgroup_wait<0>();
          S_is_there(tSrS);
          Tensor S = by_rows(tSrS);
          if (j >= whole) mask(S);
          softmax<Config, true>(S, rows, p.scale_log2);
          round_to<Element>(tOrP, tSrS);
        }
        // O += P V of tile j, and S and P of tile j - 1.
        const auto step = [&](auto masked) {
          if (copies) {
            loader.load_K(j - 1);
            loader.load_V(j);
          }
          Tensor tSrS = new_S();
          wait_K();
          wait_my_turn();
          start_S(tSrS);
          start_O();
          pass_turn();
          warpgroup_wait<1>();  // S is there, O is on its way
          S_is_there(tSrS);
          --j;
          Tensor S = by_rows(tSrS);
          if constexpr (decltype(masked)::value) mask(S);
          const bool moved = softmax<Config, false>(S, rows, p.scale_log2);
          if constexpr (Config::STEPS.early_exp) {
            // The compiler would move the exponentials behind the wait for O, where they hide under
            // nothing. A loop it does not move them across: so K of the next step is awaited here.
            warpgroup_fence_operand(tSrS);
            wait_barrier(shared.V_full[V_at.stage], V_at.lap);  // long since passed
          }
          wait_O();
          round_to<Element>(tOrP, tSrS);
          if (moved) rescale_O();
        };
#pragma unroll 1
        while (j > whole) step(true_type{});
#pragma unroll 1
        while (j > 0) step(false_type{});

        if (Config::O_HAS_ROOM) release(shared.Q_empty);
        if (copies) loader.load_V(0);
        start_O();
      }

      // Epilogue: O / l, LSE = m · scale + ln l.
      float one_over_l[2];
      CUTE_UNROLL
      for (int r = 0; r < 2; ++r) {
        const float l = quad_sum(rows.l[r]);
        one_over_l[r] = l == 0 ? 0 : 1 / l;  // 0: the row sees no key
        const int i = row + 8 * r;
        if (p.LSE && thread % 4 == 0 && i < p.Nq) {
          constexpr float LN_2 = 0.693147180559945f;
          p.LSE[size_t(work.bh) * p.Nq + i] =
              l == 0 ? -INFINITY : (rows.m[r] * p.scale_log2 + log2f(l)) * LN_2;
        }
      }
      if constexpr (Config::STEPS.overlap) wait_O();
      CUTE_UNROLL
      for (int r = 0; r < 2; ++r) {
        CUTE_UNROLL
        for (int d = 0; d < D / 4; ++d) {
          O(r, d) = one_over_l[r] == 0 ? 0 : O(r, d) * one_over_l[r];  // not 0 · NaN
        }
      }
      Tensor tOrO_rounded = make_fragment_like<Element>(tOrO);
      round_to<Element>(tOrO_rounded, tOrO);

      if constexpr (Config::O_HAS_ROOM) {
        if (thread == 0) tma_store_wait<0>();
        cutlass::arch::NamedBarrier::sync(128, kStore + uint32_t(warpgroup));  // the last O is out
      }
      const auto copy_O = make_tiled_copy_C(Copy_Atom<SM90_U32x4_STSM_N, Element>{}, mma_pv);
      const auto thread_O = copy_O.get_slice(thread);
      cute::copy(copy_O, thread_O.retile_S(tOrO_rounded), thread_O.partition_D(sO));
      tma_store_fence();  // what threads have written, TMA shall see
      cutlass::arch::NamedBarrier::sync(128, kStore + uint32_t(warpgroup));  // O is complete
      if (thread == 0) {
        CUTE_UNROLL
        for (int s = 0; s < SLABS; ++s) {  // rows beyond Nq are not written
          SM90_TMA_STORE_4D::copy(&p.O, O_smem + (s * BLOCK_M + warpgroup * 64) * 64, s * 64,
                                  work.row0 + warpgroup * 64, work.head, work.batch);
        }
        tma_store_arrive();
        if constexpr (!Config::O_HAS_ROOM) {
          tma_store_wait<0>();
          arrive_barrier(shared.Q_empty);
        }
      }
    }
    if constexpr (!Config::STEPS.persistent) break;
    wait_barrier(shared.work_full, work_at.lap);
    work = shared.work;
    arrive_barrier(shared.work_empty);
    work_at.next();
  }
  if (thread == 0) tma_store_wait<0>();  // shared memory must outlive the copy
}

template <typename Config>
__global__ void __launch_bounds__(Config::THREADS, 1)
    flash_sm90(const __grid_constant__ Sm90Arguments p) {
  constexpr int WARPGROUPS = Config::WARPGROUPS;
  extern __shared__ __align__(1024) unsigned char arena[];
  auto& shared = *reinterpret_cast<Sm90Shared<Config>*>(arena);

  if (threadIdx.x == 0) {
    initialize_barrier(shared.Q_full, 1);
    initialize_barrier(shared.Q_empty, WARPGROUPS);
    for (int s = 0; s < Config::K_STAGES; ++s) {
      initialize_barrier(shared.K_full[s], 1);
      initialize_barrier(shared.K_empty[s], WARPGROUPS);
    }
    for (int s = 0; s < Config::V_STAGES; ++s) {
      initialize_barrier(shared.V_full[s], 1);
      initialize_barrier(shared.V_empty[s], WARPGROUPS);
    }
    initialize_barrier(shared.work_full, 1);
    initialize_barrier(shared.work_empty, WARPGROUPS * 128);
    cutlass::arch::fence_barrier_init();
  }
  __syncthreads();  // the barriers are there before anyone uses them

  // The same for all threads of a warp; the shuffle lets the compiler know.
  const int warp = __shfl_sync(0xffffffff, threadIdx.x / 32, 0);
  if constexpr (!Config::STEPS.specialised) {
    compute<Config>(p, shared, warp / 4);
  } else if (warp / 4 == WARPGROUPS) {
    cutlass::arch::warpgroup_reg_dealloc<Config::COPY_REGISTERS>();
    if (warp == WARPGROUPS * 4 && elect_one_sync()) copy_tiles<Config>(p, shared);
  } else {
    cutlass::arch::warpgroup_reg_alloc<Config::COMPUTE_REGISTERS>();
    compute<Config>(p, shared, warp / 4);
  }
}

}  // namespace al::cute_attention
