#pragma once

#include "common/stage.hpp"

namespace al {

extern const Stage stage_09_cute;

}  // namespace al
