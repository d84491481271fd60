// 02_softmax: three ways to a row softmax, each timed against the one before it; and the pipeline
// chapter 01 + softmax, timed against chapter 01 alone, so that the difference is the softmax.
#include "02_softmax/stage.hpp"
#include "common/runner.hpp"

#ifdef AL_TILES
#include "02_softmax/tiles.hpp"
#endif

int main(int argc, char** argv) {
#ifdef AL_TILES
  return al::stage_main(argc, argv, al::stage_02_softmax, al::tiles_02_softmax());
#else
  return al::stage_main(argc, argv, al::stage_02_softmax);
#endif
}
