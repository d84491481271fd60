// --sweep tiles: the kernel of fused.cuh at every BLOCK_M x BLOCK_N x threads worth a look, for
// each head dim, in fp16. Not built by default: it is dozens of kernels.
#include "05_epilogue_norm_v2/tiles.hpp"

#include <string>
#include <vector>

#include "05_epilogue_norm_v2/fused.cuh"
#include "common/tile_point.hpp"

namespace al {
namespace {

using namespace fused2;

// What keeps a tile from being made at a head dim, empty: nothing does. Known before a kernel is
// compiled, which is only done where there is no reason not to.
template <int D, int BLOCK_M, int BLOCK_N, int TM, int TN>
struct Point {
  static constexpr int LANES_N = BLOCK_N / TN, TD = D / LANES_N;
  static constexpr int REGISTERS = TM * (TN + TD);  // for S and O
  static constexpr bool DIVIDES = TD % 4 == 0 && TD > 0;
  static constexpr bool IN_REGISTERS = REGISTERS <= 192;

  static std::string refuse(const Problem& p, const DeviceInfo& device) {
    if (p.operation != Operation::attention || p.dtype != DType::fp16)
      return "the sweep is about attention in fp16";
    if constexpr (!DIVIDES) {
      return "its " + std::to_string(LANES_N) + " threads to a row cannot share " +
             std::to_string(D) + " columns of O four at a time";
    } else if constexpr (!IN_REGISTERS) {
      return "S and O alone would take " + std::to_string(REGISTERS) +
             " registers a thread, of the 255 there are";
    } else {
      const std::size_t bytes = FusedTile<__half, D, BLOCK_M, BLOCK_N, TM, TN>::shared();
      if (bytes <= device.shared_per_block) return "";
      return "it needs " + std::to_string(bytes / 1024) +
             " KiB of shared memory, and a block has " +
             std::to_string(device.shared_per_block / 1024);
    }
  }
  static void launch(const Problem& p, const Arguments& a, Stream stream) {
    if constexpr (DIVIDES && IN_REGISTERS) {
      launch_tile<FusedTile<__half, D, BLOCK_M, BLOCK_N, TM, TN>>(p, a, stream);
    }
  }
};

template <int BLOCK_M, int BLOCK_N, int TM, int TN>
std::string refuse(const Problem& p, const DeviceInfo& device) {
  std::string why;
  dispatch_head_dim(p.head_dim, [&]<int D>(std::integral_constant<int, D>) {
    why = Point<D, BLOCK_M, BLOCK_N, TM, TN>::refuse(p, device);
  });
  return why;
}

template <int BLOCK_M, int BLOCK_N, int TM, int TN>
void launch(const Problem& p, const Arguments& a, Stream stream) {
  dispatch_head_dim(p.head_dim, [&]<int D>(std::integral_constant<int, D>) {
    Point<D, BLOCK_M, BLOCK_N, TM, TN>::launch(p, a, stream);
  });
}

// `TM` x `TN` scores a thread decide the threads.
template <int BLOCK_M, int BLOCK_N, int TM, int TN>
TilePoint point() {
  constexpr int THREADS = BLOCK_M / TM * (BLOCK_N / TN);
  return tile_point(BLOCK_M, BLOCK_N, THREADS,
                    {.name = tile_name(BLOCK_M, BLOCK_N, THREADS),
                     .idea = std::to_string(TM) + " x " + std::to_string(TN) + " scores a thread",
                     .operation = Operation::attention,
                     .refuse = refuse<BLOCK_M, BLOCK_N, TM, TN>,
                     .launch = launch<BLOCK_M, BLOCK_N, TM, TN>});
}

}  // namespace

std::span<const TilePoint> tiles_05_epilogue_norm_v2() {
  static const std::vector<TilePoint> points = {
      point<32, 32, 4, 4>(),  point<32, 64, 4, 4>(),   point<32, 128, 4, 8>(),
      point<64, 32, 8, 4>(),  point<64, 64, 8, 4>(),   point<64, 64, 8, 8>(),
      point<64, 128, 8, 8>(), point<128, 32, 8, 4>(),  point<128, 64, 8, 4>(),
      point<128, 64, 8, 8>(), point<128, 128, 8, 8>(), point<256, 64, 8, 8>(),
  };
  return points;
}

}  // namespace al
