// --sweep tiles: flash_sm80 at every BLOCK_M x BLOCK_N x warps worth a look. Not built by default:
// each point takes ten seconds to compile.
#pragma once

#include <string>

#include "09_cute/flash_sm80.cuh"
#include "09_cute/tiles.hpp"

namespace al {

template <int D, int BLOCK_M, int BLOCK_N, int WARPS>
void add_tile(std::vector<TilePoint>& points) {
  using Config = cute_attention::Sm80Config<cute::half_t, D, BLOCK_M, BLOCK_N, WARPS>;
  // Names live as long as the program.
  static const std::string name = std::to_string(BLOCK_M) + "x" + std::to_string(BLOCK_N) + "x" +
                                  std::to_string(Config::THREADS) + "_d" + std::to_string(D);
  const auto refuse = [](const Problem& p, const DeviceInfo&) -> std::string {
    if (p.head_dim != D) return "it is a tile for another head dim";
    if (p.dtype != DType::fp16) return "the sweep is made for fp16";
    return "";
  };
  points.push_back({.block_m = BLOCK_M,
                    .block_n = BLOCK_N,
                    .threads = Config::THREADS,
                    .variant = {.name = name.c_str(),
                                .idea = "",
                                .prior = nullptr,
                                .operation = Operation::attention,
                                .refuse = refuse,
                                .workspace = nullptr,
                                .cost = nullptr,
                                .launch = cute_attention::launch_flash_sm80_config<Config>}});
}

template <int D>
void add_tiles(std::vector<TilePoint>& points) {
  if constexpr (D <= 64) {
    add_tile<D, 64, 64, 4>(points);
    add_tile<D, 64, 128, 4>(points);
    add_tile<D, 128, 64, 4>(points);
    add_tile<D, 128, 96, 4>(points);
    add_tile<D, 128, 128, 4>(points);
  } else if constexpr (D == 128) {
    add_tile<D, 64, 64, 4>(points);
    add_tile<D, 64, 96, 4>(points);
    add_tile<D, 128, 32, 4>(points);
    add_tile<D, 128, 48, 4>(points);
    add_tile<D, 128, 64, 4>(points);
    add_tile<D, 128, 64, 8>(points);
  } else {
    add_tile<D, 64, 32, 4>(points);
    add_tile<D, 64, 48, 4>(points);
    add_tile<D, 64, 64, 4>(points);
    add_tile<D, 128, 32, 8>(points);
    add_tile<D, 128, 64, 8>(points);
  }
}

}  // namespace al
