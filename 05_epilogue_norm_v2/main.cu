// 05_epilogue_norm_v2: one change after the other from the kernel of chapter 04 to this chapter's.
#include "05_epilogue_norm_v2/stage.hpp"
#include "common/runner.hpp"

#ifdef AL_TILES
#include "05_epilogue_norm_v2/tiles.hpp"
#endif

int main(int argc, char** argv) {
#ifdef AL_TILES
  return al::stage_main(argc, argv, al::stage_05_epilogue_norm_v2, al::tiles_05_epilogue_norm_v2());
#else
  return al::stage_main(argc, argv, al::stage_05_epilogue_norm_v2);
#endif
}
