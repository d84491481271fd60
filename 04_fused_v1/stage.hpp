#pragma once

#include "common/stage.hpp"

namespace al {

extern const Stage stage_04_fused_v1;

}  // namespace al
