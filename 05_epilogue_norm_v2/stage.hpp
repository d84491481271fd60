#pragma once

#include "common/stage.hpp"

namespace al {

extern const Stage stage_05_epilogue_norm_v2;

}  // namespace al
