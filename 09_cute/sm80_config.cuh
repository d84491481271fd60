// The types of one instance of flash_sm80: which thread holds which element of what.
#pragma once

#include <algorithm>

#include "09_cute/instructions.cuh"
#include "09_cute/layouts.cuh"
#include "common/shared_arena.cuh"

namespace al::cute_attention {

using namespace cute;

// Everything about who holds what is decided here, at compile time.
// [snippet config]
template <typename T_, int D_, int BLOCK_M_, int BLOCK_N_, int WARPS_>
struct Sm80Config {
  using T = T_;
  static constexpr int D = D_, BLOCK_M = BLOCK_M_, BLOCK_N = BLOCK_N_, WARPS = WARPS_;
  static constexpr int THREADS = 32 * WARPS;
  static_assert(BLOCK_M % (16 * WARPS) == 0 && BLOCK_N % 16 == 0 && D % 16 == 0);

  // Shared memory in boxes of 8 rows x 128 bytes (64 for D = 32).
  static constexpr int BOX = std::min(D, 64);
  using Box = SwizzledBox<BOX>;
  using SmemQ = decltype(tile_to_shape(Box{}, Shape<Int<BLOCK_M>, Int<D>>{}));
  using SmemK = decltype(tile_to_shape(Box{}, Shape<Int<BLOCK_N>, Int<D>>{}));
  // V is stored as it comes, [BLOCK_N, D]; the product wants to see [D, BLOCK_N].
  using SmemV = SmemK;
  using SmemVt = decltype(composition(
      SmemV{}, Layout<Shape<Int<D>, Int<BLOCK_N>>, Stride<Int<BLOCK_N>, _1>>{}));

  // A warp's m16n8k16, the warps stacked along M. The tile of 16 in N lets one ldmatrix.x4 fetch
  // two instructions' worth of B.
  using Mma = TiledMMA<MMA_Atom<MmaOp<T>>, Layout<Shape<Int<WARPS>, _1, _1>>,
                       Tile<Int<16 * WARPS>, _16, _16>>;

  // Between global and shared memory: 16 bytes a thread, neighbours along a row.
  static constexpr int ROWS_AT_ONCE = THREADS / (BOX / 8);
  static_assert(BLOCK_M % ROWS_AT_ONCE == 0 && BLOCK_N % ROWS_AT_ONCE == 0);
  using CopyThreads = Layout<Shape<Int<ROWS_AT_ONCE>, Int<BOX / 8>>, Stride<Int<BOX / 8>, _1>>;
  using Load =
      decltype(make_tiled_copy(Copy_Atom<CpAsync, T>{}, CopyThreads{}, Layout<Shape<_1, _8>>{}));
  using Store = decltype(make_tiled_copy(Copy_Atom<UniversalCopy<uint128_t>, T>{}, CopyThreads{},
                                         Layout<Shape<_1, _8>>{}));

  static constexpr std::size_t shared() {
    return shared_bytes<T[BLOCK_M * D], T[BLOCK_N * D], T[BLOCK_N * D]>();
  }
};
// [/snippet]

}  // namespace al::cute_attention
