// 03_pv: each way to multiply by V against the one before it; then all of attention in three
// kernels against the first two of them.
#include "03_pv/stage.hpp"
#include "common/runner.hpp"

#ifdef AL_TILES
#include "03_pv/tiles.hpp"
#endif

int main(int argc, char** argv) {
#ifdef AL_TILES
  return al::stage_main(argc, argv, al::stage_03_pv, al::tiles_03_pv());
#else
  return al::stage_main(argc, argv, al::stage_03_pv);
#endif
}
