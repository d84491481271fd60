#pragma once

#include <span>

#include "common/stage.hpp"

namespace al {

// The points of `--sweep tiles`: one_pass with the row dealt to more or fewer threads.
std::span<const TilePoint> tiles_02_softmax();

}  // namespace al
