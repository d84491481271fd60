#pragma once

#include "common/stage.hpp"

namespace al::cute_attention {

// Enqueues flash_sm80.cuh's kernel for head_dim D: 32, 64, 128 or 256. Each D is a translation unit
// of its own, so that the build is parallel.
template <int D>
void launch_flash_sm80(const Problem& p, const Arguments& a, Stream stream);

}  // namespace al::cute_attention
