// --sweep tiles: softmax_one_pass at every way worth a look of dealing rows to threads. A block has
// BLOCK_M rows of up to BLOCK_N entries. Not built by default: it is dozens of kernels.
#include "02_softmax/tiles.hpp"

#include <string>
#include <vector>

#include "02_softmax/softmax.cuh"
#include "common/tile_point.hpp"

namespace al {
namespace {

using namespace softmax;

template <int BLOCK_N>
std::string refuse_tile(const Problem& p, const DeviceInfo&) {
  if (p.kv_seq > BLOCK_N || p.kv_seq <= BLOCK_N / 2) {
    return "this tile is for rows of " + std::to_string(BLOCK_N / 2 + 1) + " to " +
           std::to_string(BLOCK_N) + " entries";
  }
  return "";
}

template <int BLOCK_M, int BLOCK_N, int THREADS, Store STORE>
TilePoint point() {
  const bool streaming = STORE == Store::streaming;
  return tile_point(BLOCK_M, BLOCK_N, THREADS,
                    {.name = tile_name(BLOCK_M, BLOCK_N, THREADS) + (streaming ? "_streaming" : ""),
                     .idea = std::to_string(BLOCK_M * BLOCK_N / THREADS) + " entries a thread, " +
                             (streaming ? "streaming" : "plain") + " stores",
                     .operation = Operation::softmax,
                     .refuse = refuse_tile<BLOCK_N>,
                     .launch = launch_one_pass_tile<BLOCK_M, BLOCK_N, THREADS, STORE>});
}

template <int BLOCK_M, int BLOCK_N, int THREADS>
void add(std::vector<TilePoint>& points) {
  points.push_back(point<BLOCK_M, BLOCK_N, THREADS, Store::plain>());
  points.push_back(point<BLOCK_M, BLOCK_N, THREADS, Store::streaming>());
}

}  // namespace

std::span<const TilePoint> tiles_02_softmax() {
  static const std::vector<TilePoint> points = [] {
    std::vector<TilePoint> all;
    // 1024: a warp a row, or a block with 8, 16 or 32 entries a thread
    add<2, 1024, 64>(all), add<4, 1024, 128>(all), add<8, 1024, 256>(all);
    add<16, 1024, 512>(all), add<32, 1024, 1024>(all);
    add<1, 1024, 32>(all), add<1, 1024, 64>(all), add<1, 1024, 128>(all);
    // 4096: a warp a row needs 128 entries a thread
    add<2, 4096, 64>(all), add<4, 4096, 128>(all);
    add<1, 4096, 64>(all), add<1, 4096, 128>(all), add<1, 4096, 256>(all), add<1, 4096, 512>(all);
    // 8192
    add<1, 8192, 128>(all), add<1, 8192, 256>(all), add<1, 8192, 512>(all);
    add<1, 8192, 1024>(all);
    return all;
  }();
  return points;
}

}  // namespace al
