#pragma once

#include "09_cute/tile_order.cuh"
#include "common/stage.hpp"

namespace al::cute_attention {

// What flash_sm90 does beyond the plain loop. The chapter's table turns them on one by one.
// [snippet steps]
struct Sm90Steps {
  bool specialised;     // a warp of its own starts the copies
  bool overlap;         // the next S and the last O are multiplied under this softmax
  bool ping_pong;       // the warpgroups take turns at the tensor cores
  bool persistent;      // a block takes tile after tile, from a counter
  bool seldom_rescale;  // O is rescaled only when a maximum of the warp's rows has moved
  // … and only when it has moved by 2^8. Faster when causal; mean errors grow by 2 to 4 %, the
  // largest by up to 24 %.
  bool lagging_maximum;
};
// [/snippet]

struct Sm90Tile {
  int block_m, block_n;    // queries x keys
  int k_stages, v_stages;  // buffers of the rings
};

// The tiles that were fastest on an H200 (measured.md).
constexpr Sm90Tile best_tile(int D, bool causal, bool long_keys) {
  if (D == 64) return {192, 128, 2, 2};
  if (D == 128) return long_keys ? Sm90Tile{192, 80, 2, 2} : Sm90Tile{128, 128, 2, 2};
  return causal && !long_keys ? Sm90Tile{128, 64, 2, 2} : Sm90Tile{128, 80, 2, 2};
}
// Few keys are few queries too, and then smaller tiles waste less of the one that is not full.
constexpr bool long_keys(int D, int kv_seq) { return kv_seq >= (D == 128 ? 2048 : 8192); }

// The first `n` steps, 0 … 6.
constexpr Sm90Steps first_steps(int n) { return {n > 0, n > 1, n > 2, n > 3, n > 4, n > 5}; }
// All but the last, which costs accuracy; and with D = 256 the products take so long that turns
// bring nothing.
constexpr Sm90Steps best_steps(int D) {
  Sm90Steps steps = first_steps(5);
  steps.ping_pong = D < 256;
  return steps;
}

// The order of the tiles of O (tile_order.cuh) for tiles of `block_m` queries.
TileOrder sm90_order(const Problem& p, int block_m, const DeviceInfo& device);

// Enqueues flash_sm90.cuh's kernel for head_dim D: 64, 128 or 256. Each D is a translation unit of
// its own, so that the build is parallel. a.workspace: an int that is 0, and is left 0.
// `packed`: log2 of the query heads that a tile takes together, at most 6; 2^packed divides the
// heads that share a key/value head.
template <int D>
void launch_flash_sm90(int packed, const Problem& p, const Arguments& a, Stream stream);

// The same with the first `steps` steps alone, 0 … 4, or with all 6; for fp16, causal, D = 64 and
// 128.
template <int D>
void launch_flash_sm90_steps(int steps, const Problem& p, const Arguments& a, Stream stream);

}  // namespace al::cute_attention
