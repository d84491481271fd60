#pragma once

#include <span>

#include "common/stage.hpp"

namespace al {

// The points of `--sweep tiles`: the kernel at many tile sizes.
std::span<const TilePoint> tiles_05_epilogue_norm_v2();

}  // namespace al
