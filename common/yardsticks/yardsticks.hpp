// Libraries doing the same job, to measure the stages against.
#pragma once

#include <span>

#include "common/stage.hpp"

namespace al {

// The libraries' variants for this operation. Each refuses where its library is not installed.
std::span<const Variant> yardsticks(Operation operation);

}  // namespace al
