// Was every element of the result written? The buffer is poisoned before the kernel runs
// (DeviceBuffer::poison); this counts the poison that is left.
#pragma once

#include <cstdint>

#include "common/problem.hpp"

namespace al {

// Elements of the result `out` (a device pointer; S, P or O as Problem shapes it) whose bits are
// all ones still. Masked entries of S and P need not be written and do not count. Waits for the
// device.
std::int64_t count_unwritten(const Problem& problem, const void* out);

}  // namespace al
