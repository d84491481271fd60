#pragma once

#include "common/stage.hpp"

namespace al {

extern const Stage stage_03_pv;

}  // namespace al
