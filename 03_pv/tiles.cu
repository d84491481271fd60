// --sweep tiles: the register-tile kernel of pv.cuh at every BLOCK_M x BLOCK_N x BLOCK_K x threads
// worth a look. Not built by default: it is dozens of kernels.
#include "03_pv/tiles.hpp"

#include <string>
#include <vector>

#include "03_pv/pv.cuh"
#include "common/tile_point.hpp"

namespace al {
namespace {

using namespace pv;

template <int BLOCK_N>
std::string refuse_tile(const Problem& p, const DeviceInfo&) {
  if (p.operation != Operation::pv) return "the sweep is about O = P V";
  if (p.head_dim % BLOCK_N != 0) return "BLOCK_N must divide D";
  return "";
}

// `TM` x `TN` outputs a thread decide the threads.
template <int BLOCK_M, int BLOCK_N, int BLOCK_K, int TM, int TN>
TilePoint point() {
  constexpr int THREADS = BLOCK_M / TM * (BLOCK_N / TN);
  return tile_point(
      BLOCK_M, BLOCK_N, THREADS,
      {.name = "keys" + std::to_string(BLOCK_K) + "_" + tile_name(BLOCK_M, BLOCK_N, THREADS),
       .idea = std::to_string(TM) + " x " + std::to_string(TN) + " outputs a thread",
       .operation = Operation::pv,
       .refuse = refuse_tile<BLOCK_N>,
       .launch = launch_pv_register_tiles<BLOCK_M, BLOCK_N, BLOCK_K, TM, TN>});
}

// At 16 and 32 keys a chunk; and 8, where there are not more threads than vectors to copy.
template <int BLOCK_M, int BLOCK_N, int TM, int TN>
void add(std::vector<TilePoint>& points) {
  constexpr int THREADS = BLOCK_M / TM * (BLOCK_N / TN);
  if constexpr (THREADS <= 2 * BLOCK_M && THREADS <= 2 * BLOCK_N) {
    points.push_back(point<BLOCK_M, BLOCK_N, 8, TM, TN>());
  }
  points.push_back(point<BLOCK_M, BLOCK_N, 16, TM, TN>());
  points.push_back(point<BLOCK_M, BLOCK_N, 32, TM, TN>());
}

}  // namespace

std::span<const TilePoint> tiles_03_pv() {
  static const std::vector<TilePoint> points = [] {
    std::vector<TilePoint> made;
    add<32, 64, 4, 4>(made);
    add<64, 64, 4, 8>(made);
    add<64, 64, 8, 4>(made);
    add<64, 64, 8, 8>(made);
    add<128, 64, 8, 8>(made);
    add<128, 64, 8, 16>(made);
    add<256, 64, 8, 8>(made);
    add<256, 64, 8, 16>(made);
    add<64, 128, 8, 8>(made);
    add<128, 128, 8, 8>(made);
    add<128, 128, 8, 16>(made);
    add<256, 128, 8, 16>(made);
    return made;
  }();
  return points;
}

}  // namespace al
