#pragma once

#include "common/stage.hpp"

namespace al {

extern const Stage stage_01_naive_qk;

}  // namespace al
