// Makes the points of `--sweep tiles`, for the chapters' tiles.cu.
#pragma once

#include <deque>
#include <string>
#include <utility>

#include "common/stage.hpp"

namespace al {

// A variant's strings are the chapter's; these are made at run time and live as long as the
// program.
inline const char* kept(std::string text) {
  static std::deque<std::string> all;  // which does not move what it holds
  return all.emplace_back(std::move(text)).c_str();
}

inline std::string tile_name(int block_m, int block_n, int threads) {
  return std::to_string(block_m) + "x" + std::to_string(block_n) + "x" + std::to_string(threads);
}

// `variant` has everything but a prior and a cost; its name, which tile_name() makes at least a
// part of, and its idea may be temporary strings.
struct TileVariant {
  std::string name, idea;
  Operation operation;
  decltype(Variant::refuse) refuse;
  decltype(Variant::launch) launch;
};

inline TilePoint tile_point(int block_m, int block_n, int threads, TileVariant variant) {
  return {.block_m = block_m,
          .block_n = block_n,
          .threads = threads,
          .variant = {.name = kept(std::move(variant.name)),
                      .idea = kept(std::move(variant.idea)),
                      .prior = nullptr,
                      .operation = variant.operation,
                      .refuse = variant.refuse,
                      .workspace = nullptr,
                      .cost = nullptr,
                      .launch = variant.launch}};
}

}  // namespace al
