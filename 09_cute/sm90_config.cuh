// What flash_sm90's threads agree on: the types of one instance, its shared memory, how work is
// handed out, and where each is in a ring of buffers.
#pragma once

#include "09_cute/flash_sm90.hpp"
#include "09_cute/instructions_sm90.cuh"
#include "09_cute/tile_order.cuh"
#include "common/kernel_shape.cuh"
#include "common/shared_arena.cuh"
#include "common/tensor_map.hpp"

namespace al::cute_attention {

using namespace cute;
using cute::Tensor;  // not al::Tensor

// A tile of O, rows row0 … end - 1, and the tiles of keys that it needs: 0 … key_tiles - 1. No
// tiles: no more work.
struct Work {
  int bh = 0, batch = 0, head = 0, row0 = 0, end = 0, key_tiles = 0;
};

// The types of one instance: everything about who holds what is decided here, at compile time.
// [snippet config]
template <typename T_, int D_, bool CAUSAL_, Sm90Tile TILE_, Sm90Steps STEPS_>
struct Sm90Config {
  using T = T_;
  static constexpr Sm90Tile TILE = TILE_;
  static constexpr Sm90Steps STEPS = STEPS_;
  static constexpr bool CAUSAL = CAUSAL_;
  static constexpr int LAG = STEPS.lagging_maximum  ? 8
                             : STEPS.seldom_rescale ? 0
                                                    : -1;  // of maxima
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
  static_assert(size<1>(typename MmaQK::AtomShape_MNK{}) == BLOCK_N, "one instruction wide");

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

// The problem as the kernel counts it. Packed, query heads that share keys are one head: its first
// rows are the first queries of 2^PACKED heads, then come their second queries, and so on. So a few
// queries of each fill a tile, and what they all read is read once.
// [snippet packed]
struct Sm90Shape : KernelShape {
  int packed;  // log2. heads, group and Nq are of the heads as they are packed

  Sm90Shape(const Problem& p, int log2) : KernelShape(p), packed(log2) {
    heads >>= packed, group >>= packed, Nq <<= packed;
  }
  // Keys that a packed row sees; negative or 0: none.
  __device__ int visible_keys(int row) const {
    return causal ? (row >> packed) + 1 + Nkv - (Nq >> packed) : Nkv;
  }
  // Where a packed row lies in [B · Hq · Nq].
  __device__ std::size_t row_of(int bh, int row) const {
    const int head = row & ((1 << packed) - 1);
    return ((std::size_t(bh) << packed) + head) * (Nq >> packed) + (row >> packed);
  }
};
// [/snippet]

struct Sm90Arguments {
  TensorMap Q, O;  // [B, H, N, packed, D]; a copy takes 64 columns of 64 packed rows
  TensorMap K, V;  // [B, H, N, D]; a copy takes 64 columns of BLOCK_N rows
  const void *Q_data, *K_data, *V_data;  // the same by address; see without_leaks()
  float* LSE;                            // [B, Hq, Nq] or nullptr
  int* counter;                          // tiles given away so far; 0 before and after a launch
  Sm90Shape shape;
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

// [snippet ring]
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
// [/snippet]

template <typename Config>
__device__ int visible(const Sm90Shape& shape, int row) {
  return Config::CAUSAL ? min(shape.Nkv, shape.visible_keys(row)) : shape.Nkv;
}

// Tiles of keys that a row sees. At least one: a row that sees no key is masked, and its zeros are
// written, like all others.
template <typename Config>
__device__ int tiles_seen_by(const Sm90Shape& shape, int row) {
  return max(1, ceil_div(visible<Config>(shape, row), Config::BLOCK_N));
}

// Tiles are counted from a head's end, so the one that is not full is the first: when causal, it
// has the fewest keys, and warpgroups without rows stand idle for the shortest time.
// [snippet work_of]
template <typename Config>
__device__ Work work_of(const Sm90Arguments& args, int tile) {
  if (tile >= args.order.tiles()) return {};
  const OutputTile out = args.order(tile);
  const int end = ceil_div(args.shape.Nq, 64) * 64 -  // whole warpgroups
                  (args.order.tiles_m - 1 - out.m) * Config::BLOCK_M;
  const int last_row = min(end, args.shape.Nq) - 1;
  return {.bh = out.bh,
          .batch = out.bh / args.shape.heads,
          .head = out.bh % args.shape.heads,
          .row0 = max(0, end - Config::BLOCK_M),
          .end = last_row + 1,
          .key_tiles = tiles_seen_by<Config>(args.shape, last_row)};
}
// [/snippet]

}  // namespace al::cute_attention
