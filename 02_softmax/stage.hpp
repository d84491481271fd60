#pragma once

#include "common/stage.hpp"

namespace al {

extern const Stage stage_02_softmax;

}  // namespace al
