#pragma once

#include "common/stage.hpp"

namespace al {

extern const Stage stage_07_flash_decoding;

}  // namespace al
