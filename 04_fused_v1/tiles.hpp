#pragma once

#include <span>

#include "common/stage.hpp"

namespace al {

// The points of `--sweep tiles`: the kernel at many tile sizes.
std::span<const TilePoint> tiles_04_fused_v1();

}  // namespace al
