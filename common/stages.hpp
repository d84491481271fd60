// Every stage there is, in the ladder's order: what `ladder` and the C ABI offer.
#pragma once

#include <span>

#include "common/stage.hpp"

namespace al {

std::span<const Stage* const> all_stages();

}  // namespace al
