// Runs the kernels of this chapter's labs: the student's copy of merge.cuh or split.cuh comes
// first.
#include "07_flash_decoding/split.cuh"
#include "common/lab/run.hpp"

#ifndef AL_RULE_CAUSAL  // lab_serial.cuh, in the place of split.cuh, has a launcher of its own
namespace al::decoding {

// A block takes so many rows of Q, and every tile of 64 keys is a chunk: so there are many.
template <int ROWS>
void launch_lab(const Problem& p, const Arguments& a, Stream stream) {
  using Tile = SplitTile<float, 64, ROWS>;
  const Plan plan{.heads = p.batch * p.kv_heads,
                  .row_tiles = ceil_div(p.group() * p.seq, ROWS),
                  .tile = Tile::BLOCK_KEYS,
                  .splits = ceil_div(p.kv_seq, Tile::BLOCK_KEYS),
                  .chunk = Tile::BLOCK_KEYS};
  launch_split<Tile>(p, a, plan, true, stream);
}

}  // namespace al::decoding
#endif

int main(int argc, char** argv) {
  return al::lab::run(argc, argv,
                      {.launch = AL_LAB_LAUNCH,
                       .workspace = [](const al::Problem&) { return std::size_t{1} << 20; },
                       .zeroed = [](const al::Problem&) { return std::size_t{1024}; }});
}
