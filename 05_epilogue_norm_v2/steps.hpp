// The kernel with some of its changes undone, to measure each of them alone: fp16 and head dims 64
// and 128 only, at the large tiles.
#pragma once

#include <string>

#include "common/stage.hpp"

namespace al::fused2 {

// The rungs from chapter 04's kernel to this chapter's: each has one change more than the one
// before. The last two are the whole kernel with one change undone.
inline constexpr unsigned kRungs[] = {0, 1, 3, 7, 15, 31, 63, 127, 255, 254};

std::string refuse_step(const Problem& p, const DeviceInfo& device);

// `CHANGES` is one of kRungs.
template <unsigned CHANGES>
void launch_step(const Problem& p, const Arguments& a, Stream stream);

}  // namespace al::fused2
