// Runs flash_sm90 of a lab: the student's copy of flash_sm90.cuh comes first. Tiles of 128 x 16, a
// warp that copies, and none of the steps beyond: this compiles in seconds.
#include "09_cute/flash_sm90.cuh"
#include "common/lab/run.hpp"

namespace {

using namespace al;

void launch_small(const Problem& p, const Arguments& a, Stream stream) {
  using namespace cute_attention;
  using Config = Sm90Config<half_t, 64, false, Sm90Tile{128, 16, 2, 2}, first_steps(1)>;
  const TileOrder order(p.batch * p.heads, p.group(), ceil_div(p.seq, Config::BLOCK_M), 1, 1);
  launch_flash_sm90_config<Config>(p, a, stream, order);
}

std::size_t counter(const Problem&) { return sizeof(int); }

}  // namespace

int main(int argc, char** argv) {
  return lab::run(argc, argv, {.launch = AL_LAB_LAUNCH, .workspace = counter, .zeroed = counter});
}
