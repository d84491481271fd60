// --sweep tiles: both kernels at every BLOCK_M x BLOCK_N x threads worth a look, fp16. Not built by
// default: each point takes ten seconds to compile.
#pragma once

#include <string>

#include "09_cute/flash_sm80.cuh"
#include "09_cute/flash_sm90.cuh"
#include "09_cute/tiles.hpp"

namespace al {

template <int D>
std::string refuse_tile(const Problem& p) {
  if (p.head_dim != D) return "it is a tile for another head dim";
  if (p.dtype != DType::fp16) return "the sweep is made for fp16";
  return "";
}

// A point called e.g. flash_sm80_128x64x128. `variant`: without its name.
template <typename Config>
void add_tile(std::vector<TilePoint>& points, const std::string& kernel, const Variant& variant) {
  // Names live as long as the program.
  static const std::string name = kernel + "_" + std::to_string(Config::BLOCK_M) + "x" +
                                  std::to_string(Config::BLOCK_N) + "x" +
                                  std::to_string(Config::THREADS);
  TilePoint point{Config::BLOCK_M, Config::BLOCK_N, Config::THREADS, variant};
  point.variant.name = name.c_str();
  point.variant.idea = "";
  point.variant.operation = Operation::attention;
  points.push_back(point);
}

template <int D, int BLOCK_M, int BLOCK_N, int WARPS>
void add_sm80(std::vector<TilePoint>& points) {
  using Config = cute_attention::Sm80Config<cute::half_t, D, BLOCK_M, BLOCK_N, WARPS>;
  Variant variant{};
  variant.refuse = [](const Problem& p, const DeviceInfo&) { return refuse_tile<D>(p); };
  variant.launch = cute_attention::launch_flash_sm80_config<Config>;
  add_tile<Config>(points, "flash_sm80", variant);
}

template <int D, int BLOCK_M, int BLOCK_N>
void add_sm90(std::vector<TilePoint>& points) {
  using namespace cute_attention;
  static constexpr Sm90Tile TILE{BLOCK_M, BLOCK_N, 2, 2};
  using Causal = Sm90Config<cute::half_t, D, true, TILE, best_steps(D)>;
  using Full = Sm90Config<cute::half_t, D, false, TILE, best_steps(D)>;
  Variant variant{};
  variant.refuse = [](const Problem& p, const DeviceInfo& device) -> std::string {
    return device.sm == 90 ? refuse_tile<D>(p) : "WGMMA exists on sm_90a (Hopper) alone";
  };
  variant.workspace = variant.zeroed = [](const Problem&) { return sizeof(int); };
  variant.launch = [](const Problem& p, const Arguments& a, Stream stream) {
    const TileOrder order = sm90_order(p, BLOCK_M, device());
    p.causal ? launch_flash_sm90_config<Causal>(p, a, stream, order)
             : launch_flash_sm90_config<Full>(p, a, stream, order);
  };
  add_tile<Causal>(points, "flash_sm90", variant);
}

template <int D>
void add_tiles(std::vector<TilePoint>& points) {
  if constexpr (D <= 64) {
    add_sm80<D, 64, 64, 4>(points);
    add_sm80<D, 64, 128, 4>(points);
    add_sm80<D, 128, 64, 4>(points);
    add_sm80<D, 128, 96, 4>(points);
    add_sm80<D, 128, 128, 4>(points);
  } else if constexpr (D == 128) {
    add_sm80<D, 64, 64, 4>(points);
    add_sm80<D, 64, 96, 4>(points);
    add_sm80<D, 128, 32, 4>(points);
    add_sm80<D, 128, 48, 4>(points);
    add_sm80<D, 128, 64, 4>(points);
    add_sm80<D, 128, 64, 8>(points);
  } else {
    add_sm80<D, 64, 32, 4>(points);
    add_sm80<D, 64, 48, 4>(points);
    add_sm80<D, 64, 64, 4>(points);
    add_sm80<D, 128, 32, 8>(points);
    add_sm80<D, 128, 64, 8>(points);
  }
  if constexpr (D == 64) {
    add_sm90<D, 128, 128>(points);
    add_sm90<D, 128, 176>(points);
    add_sm90<D, 192, 96>(points);
    add_sm90<D, 192, 112>(points);
    add_sm90<D, 192, 128>(points);
    add_sm90<D, 192, 144>(points);
  } else if constexpr (D == 128) {
    add_sm90<D, 128, 96>(points);
    add_sm90<D, 128, 128>(points);
    add_sm90<D, 128, 160>(points);
    add_sm90<D, 128, 176>(points);
    add_sm90<D, 192, 80>(points);
    add_sm90<D, 192, 96>(points);
  } else if constexpr (D == 256) {
    add_sm90<D, 128, 48>(points);
    add_sm90<D, 128, 64>(points);
    add_sm90<D, 128, 80>(points);
  }
}

}  // namespace al
