// 01_naive_qk: the first rung, so there is no prior stage; each rung is timed against the one
// before it.
#include "01_naive_qk/stage.hpp"
#include "common/runner.hpp"

#ifdef AL_TILES
#include "01_naive_qk/tiles.hpp"
#endif

int main(int argc, char** argv) {
#ifdef AL_TILES
  return al::stage_main(argc, argv, al::stage_01_naive_qk, al::tiles_01_naive_qk());
#else
  return al::stage_main(argc, argv, al::stage_01_naive_qk);
#endif
}
