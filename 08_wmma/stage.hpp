#pragma once

#include "common/stage.hpp"

namespace al {

extern const Stage stage_08_wmma;

}  // namespace al
