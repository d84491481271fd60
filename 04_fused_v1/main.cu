// 04_fused_v1: all of attention in one kernel, against the three of chapter 03.
#include "04_fused_v1/stage.hpp"
#include "common/runner.hpp"

#ifdef AL_TILES
#include "04_fused_v1/tiles.hpp"
#endif

int main(int argc, char** argv) {
#ifdef AL_TILES
  return al::stage_main(argc, argv, al::stage_04_fused_v1, al::tiles_04_fused_v1());
#else
  return al::stage_main(argc, argv, al::stage_04_fused_v1);
#endif
}
