// The executables: a chapter's main.cu and ladder.cpp hand over to these. They never throw; what
// they return is the exit code.
#pragma once

#include <span>

#include "common/stage.hpp"

namespace al {

// One stage, against its prior. `tiles` are the points of --sweep tiles, linked into the
// NN_stage_tiles executable only.
int stage_main(int argc, char** argv, const Stage& stage, std::span<const TilePoint> tiles = {});

// Every stage in one table.
int ladder_main(int argc, char** argv, std::span<const Stage* const> stages);

}  // namespace al
