// The kernel with some of its changes undone, to measure each alone. For fp16 and head dims 64 and
// 128 only, at their large tiles: these are many kernels.
#pragma once

#include <string>

#include "05_epilogue_norm_v2/fused.cuh"
#include "common/stage.hpp"

namespace al::fused2 {

// Each rung has one change more than the one before.
inline constexpr unsigned kRung0 = 0, kRung1 = kRung0 | kEpilogueNorm, kRung2 = kRung1 | kExp2,
                          kRung3 = kRung2 | kEarlyExit, kRung4 = kRung3 | kTwoPass,
                          kRung5 = kRung4 | kByLength, kRung6 = kRung5 | kPaddedP,
                          kRung7 = kRung6 | kPrefetch, kRung8 = kRung7 | kSkipRescale;

std::string refuse_step(const Problem& p, const DeviceInfo& device);

// Compiled in steps.cu for the rungs, and for all changes but the first.
template <unsigned CHANGES>
void launch_step(const Problem& p, const Arguments& a, Stream stream);

}  // namespace al::fused2
