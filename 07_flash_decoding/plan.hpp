// Into how many chunks the keys of a head are split.
#pragma once

#include "common/device.hpp"
#include "common/problem.hpp"

namespace al::decoding {

// What the split depends on of a kernel.
struct Appetite {
  int rows;           // of Q that a block takes; all of them share a key/value head
  int keys;           // that a block takes at a time, a tile: a chunk is so many of these
  int blocks_per_sm;  // that an SM holds
};

struct Plan {
  int heads;      // key/value heads, over the batch
  int row_tiles;  // blocks that share a key/value head's chunk
  int tile;       // keys of one
  int splits;     // chunks of a head: tile t belongs to chunk t % splits
  int chunk;      // keys of one, at the most
  int blocks() const { return heads * row_tiles * splits; }
};

// `splits` 0: as many as cost least by predicted_bytes(); else about so many.
Plan make_plan(const Problem& p, const Appetite& appetite, const DeviceInfo& device,
               int splits = 0);

// What a plan takes, as the bytes that the whole GPU could read in that time.
double predicted_bytes(const Problem& p, const Plan& plan, const Appetite& appetite,
                       const DeviceInfo& device);

}  // namespace al::decoding
