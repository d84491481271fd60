#pragma once

#include <span>
#include <vector>

#include "common/stage.hpp"

namespace al {

// The points of `--sweep tiles`, fp16: the sm_80 kernel at many tile sizes.
std::span<const TilePoint> tiles_09_cute();

// Those of one head dim, in a translation unit of their own.
template <int D>
void add_tiles(std::vector<TilePoint>& points);

}  // namespace al
