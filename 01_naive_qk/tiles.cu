// --sweep tiles: the register-tile kernel of qk.cuh at every BLOCK_M x BLOCK_N x threads worth a
// look. Not built by default: it is dozens of kernels.
#include "01_naive_qk/tiles.hpp"

#include <string>
#include <vector>

#include "01_naive_qk/qk.cuh"
#include "common/tile_point.hpp"

namespace al {
namespace {

using namespace qk;

constexpr int BLOCK_D = 32;

std::string refuse_tile(const Problem& p, const DeviceInfo&) {
  if (p.head_dim % BLOCK_D != 0) return "the sweep's tiles walk D in chunks of 32";
  return "";
}

// `TM` x `TN` scores a thread decide the threads.
template <int BLOCK_M, int BLOCK_N, int TM, int TN>
TilePoint point() {
  constexpr int THREADS = BLOCK_M / TM * (BLOCK_N / TN);
  return tile_point(BLOCK_M, BLOCK_N, THREADS,
                    {.name = tile_name(BLOCK_M, BLOCK_N, THREADS),
                     .idea = std::to_string(TM) + " x " + std::to_string(TN) + " scores a thread",
                     .operation = Operation::scores,
                     .refuse = refuse_tile,
                     .launch = launch_register_tiles<BLOCK_M, BLOCK_N, BLOCK_D, TM, TN>});
}

}  // namespace

std::span<const TilePoint> tiles_01_naive_qk() {
  static const std::vector<TilePoint> points = {
      point<32, 32, 4, 4>(),   point<32, 64, 4, 4>(),   point<32, 128, 4, 4>(),
      point<64, 32, 4, 4>(),   point<64, 64, 4, 4>(),   point<64, 128, 4, 4>(),
      point<128, 32, 4, 4>(),  point<128, 64, 4, 4>(),  point<128, 128, 4, 4>(),
      point<32, 64, 8, 4>(),   point<32, 128, 8, 4>(),  point<64, 32, 8, 4>(),
      point<64, 64, 8, 4>(),   point<64, 128, 8, 4>(),  point<128, 32, 8, 4>(),
      point<128, 64, 8, 4>(),  point<128, 128, 8, 4>(), point<64, 64, 8, 8>(),
      point<64, 128, 8, 8>(),  point<128, 64, 8, 8>(),  point<128, 128, 8, 8>(),
      point<128, 256, 8, 8>(), point<256, 128, 8, 8>(),
  };
  return points;
}

}  // namespace al
