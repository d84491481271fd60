// cuDNN's fused attention, opened at run time: the program neither needs it to build nor to start.
#pragma once

#include <cstddef>
#include <string>

#include "common/device.hpp"
#include "common/stage.hpp"

namespace al::cudnn {

// "cuDNN 9.19.0", or "cuDNN" where there is none.
std::string name();

// Why cuDNN cannot compute this attention here, in its own words where it has some; empty: it can.
// The first question about a problem builds cuDNN's plan for it, which takes about a second; what
// follows finds it made.
std::string refuse(const Problem& problem, const DeviceInfo& device);

// Bytes of device memory the plan asks for.
std::size_t workspace(const Problem& problem);

// Enqueues O and LSE of a problem that was not refused; it can be captured in a graph. Throws
// Error(wrong_result) with cuDNN's words when it fails.
// O of an 8-bit problem stays in e4m3, in the workspace and in units of V's factor, until ...
void attention(const Problem& problem, const Arguments& arguments, Stream stream);

// ... this brings it where the others' is. Otherwise it does nothing.
void widen_O(const Problem& problem, const Arguments& arguments, Stream stream);

}  // namespace al::cudnn
