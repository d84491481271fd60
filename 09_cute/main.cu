// 09_cute: the sm_80 kernel and the sm_90a kernel against chapter 08.
#include "09_cute/stage.hpp"
#include "common/runner.hpp"

#ifdef AL_TILES
#include "09_cute/tiles.hpp"
#endif

int main(int argc, char** argv) {
#ifdef AL_TILES
  return al::stage_main(argc, argv, al::stage_09_cute, al::tiles_09_cute());
#else
  return al::stage_main(argc, argv, al::stage_09_cute);
#endif
}
