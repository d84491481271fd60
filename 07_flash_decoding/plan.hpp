// Who takes which keys: into how many chunks the keys of a head are split.
#pragma once

#include "common/device.hpp"
#include "common/problem.hpp"

namespace al::decoding {

// How a kernel takes its work, as far as the split depends on it.
struct Appetite {
  int rows;           // of Q that a block takes; all of them share a key/value head
  int keys;           // that a block takes at a time: a chunk is a whole number of these
  int blocks_per_sm;  // that an SM holds
};

struct Plan {
  int row_tiles;  // blocks that share a key/value head's chunk
  int heads;      // key/value heads, over the batch
  int splits;     // chunks of a head
  int chunk;      // keys of one
  int blocks() const { return heads * row_tiles * splits; }
};

// `splits` 0: as many as the model below says.
Plan make_plan(const Problem& p, const Appetite& appetite, const DeviceInfo& device,
               int splits = 0);

}  // namespace al::decoding
