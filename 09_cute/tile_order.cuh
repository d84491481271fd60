// Which tile of O a block computes.
#pragma once

#include <algorithm>

#include "common/device.hpp"
#include "common/kernel_shape.cuh"

namespace al::cute_attention {

struct OutputTile {
  int bh;  // query head, counted over the batch
  int m;   // tile of queries; which rows those are, the kernel says
};

// Blocks start in the order of their index. Two wishes:
//  * the tiles that see the most keys first, so that short ones fill the end (when causal, those
//    are the last of each head);
//  * heads that run at the same time should find their K and V in L2.
// So heads go in groups small enough for L2, and within a group the last tile of all its heads
// comes first. Heads are counted so that those of one key/value head are neighbours.
struct TileOrder {
  int heads;    // B · Hq
  int at_once;  // heads of a group
  int tiles_m;  // tiles of a head

  TileOrder() = default;
  // `kv_bytes`: K and V of one key/value head, which `group` query heads share.
  TileOrder(int all_heads, int group, int tiles, std::size_t kv_bytes, std::size_t l2_bytes)
      : heads(all_heads), tiles_m(tiles) {
    // Half of L2: the other half is for Q, O and what is on its way out.
    const std::size_t fitting = std::max<std::size_t>(1, l2_bytes / 2 / kv_bytes) * group;
    at_once = static_cast<int>(std::min<std::size_t>(fitting, heads));
  }

  __host__ __device__ int tiles() const { return heads * tiles_m; }

  __host__ __device__ OutputTile operator()(int i) const {
    const int first_head = i / (at_once * tiles_m) * at_once;
    const int here = heads - first_head < at_once ? heads - first_head : at_once;  // the last group
    const int j = i - first_head * tiles_m;
    return {.bh = first_head + j % here, .m = tiles_m - 1 - j / here};
  }
};

}  // namespace al::cute_attention
