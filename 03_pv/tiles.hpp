#pragma once

#include <span>

#include "common/stage.hpp"

namespace al {

// The points of `--sweep tiles`: the register-tile kernel at many tile sizes.
std::span<const TilePoint> tiles_03_pv();

}  // namespace al
