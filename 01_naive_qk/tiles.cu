// --sweep tiles: the register-tile kernel of qk.cuh at every BLOCK_M x BLOCK_N x threads worth a
// look. Not built by default: it is dozens of kernels.
#include "01_naive_qk/tiles.hpp"

#include <cstdio>
#include <string>
#include <vector>

#include "01_naive_qk/qk.cuh"

namespace al {
namespace {

using namespace qk;

constexpr int BLOCK_D = 32;

std::string refuse_tile(const Problem& p, const DeviceInfo&) {
  if (p.head_dim % BLOCK_D != 0) return "the sweep's tiles walk D in chunks of 32";
  return "";
}

// `TM` x `TN` scores a thread decide the threads. Names live as long as the program.
template <int BLOCK_M, int BLOCK_N, int TM, int TN>
TilePoint point() {
  constexpr int THREADS = BLOCK_M / TM * (BLOCK_N / TN);
  static const std::string name =
      std::to_string(BLOCK_M) + "x" + std::to_string(BLOCK_N) + "x" + std::to_string(THREADS);
  static const std::string idea =
      std::to_string(TM) + " x " + std::to_string(TN) + " scores a thread";
  return {.block_m = BLOCK_M,
          .block_n = BLOCK_N,
          .threads = THREADS,
          .variant = {.name = name.c_str(),
                      .idea = idea.c_str(),
                      .prior = nullptr,
                      .operation = Operation::scores,
                      .refuse = refuse_tile,
                      .workspace = nullptr,
                      .cost = nullptr,
                      .launch = launch_register_tiles<BLOCK_M, BLOCK_N, BLOCK_D, TM, TN>}};
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
