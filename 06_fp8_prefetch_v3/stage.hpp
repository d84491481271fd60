#pragma once

#include "common/stage.hpp"

namespace al {

extern const Stage stage_06_fp8_prefetch_v3;

}  // namespace al
