// The record of chapter 01: its four rungs, what each supports and what each should cost.
#include "01_naive_qk/stage.hpp"

#include <algorithm>
#include <cstdint>

#include "01_naive_qk/qk.cuh"

namespace al {
namespace {

using namespace qk;

// [snippet choose]
// Large tiles reuse more, small ones give every SM something to do: large once there are two waves
// of them, four blocks an SM.
bool large_tiles(const Problem& p) {
  const std::int64_t tiles =
      std::int64_t{p.batch} * p.heads * ceil_div(p.seq, 64) * ceil_div(p.kv_seq, 128);
  return p.head_dim >= 32 && tiles >= 2 * 4 * device().sms;
}

void launch_best_register_tiles(const Problem& p, const Arguments& a, Stream stream) {
  if (p.head_dim == 16) {
    launch_register_tiles<64, 64, 16, 8, 4>(p, a, stream);
  } else if (large_tiles(p)) {
    launch_register_tiles<64, 128, 32, 8, 8>(p, a, stream);
  } else {
    launch_register_tiles<64, 64, 32, 8, 4>(p, a, stream);
  }
}
// [/snippet]

// Scores computed, masked ones inside visible tiles included: whole tiles, clipped to the matrix.
double computed_scores(const Problem& p, int block_m, int block_n) {
  double scores = 0;
  for (int row0 = 0; row0 < p.seq; row0 += block_m) {
    const int rows = std::min(block_m, p.seq - row0);
    const int visible = p.visible_keys(row0 + rows - 1);  // the tile's last row sees the most
    scores += 1.0 * rows * std::min(ceil_div(visible, block_n) * block_n, p.kv_seq);
  }
  return scores * p.batch * p.heads;
}

Cost cost(const Problem& p, double scores, double wavefronts_per_warp) {
  return {.ffma_flops = 2.0 * scores * p.head_dim,
          .dram_bytes = p.in_bytes() + scores * sizeof(float),
          .shared_wavefronts = scores / 32 * wavefronts_per_warp};
}

// [snippet costs]
// Wavefronts that a warp of 32 scores causes: the passes its loads and stores make through the
// load/store unit, one a clock. A load takes a pass for each 128-byte line the lanes touch: 1 when
// they agree or are neighbours, 32 when each is in a row of its own.
Cost cost_uncoalesced(const Problem& p) {
  const double loads = p.head_dim * (32 + 1), store = 32;
  return cost(p, minimum_work(p).flops / (2.0 * p.head_dim), loads + store);
}
Cost cost_coalesced(const Problem& p) {
  const double loads = p.head_dim * (1 + 32), store = 1;
  return cost(p, minimum_work(p).flops / (2.0 * p.head_dim), loads + store);
}
// For 32 d: two loads and two stores bring them in; then K is read word by word, and Q, the same
// for all lanes, four words at a time in two passes (the compiler makes 16-byte loads of it).
Cost cost_shared_tiles(const Problem& p) {
  const double bring_in = 2 + 2, read_K = 32, read_Q = 32 / 4 * 2, store = 1;
  return cost(p, computed_scores(p, 32, 32),
              ceil_div(p.head_dim, 32) * (bring_in + read_K + read_Q) + store);
}
// A warp holds 2 x 16 threads with TM x TN scores each. For 32 d each thread brings in its share of
// the tiles, 4 passes to load and 4 to store 16 bytes; for four d it reads TM float4 of Q and TN of
// K, 2 passes each; a store goes to two rows at once.
Cost cost_register_tiles(const Problem& p) {
  const int block_m = 64, block_n = large_tiles(p) ? 128 : 64, TM = 8, TN = large_tiles(p) ? 8 : 4;
  const double scores = TM * TN, threads = block_m * block_n / scores;
  const double bring_in = p.head_dim / 32.0 * (block_m + block_n) * 8 / threads * (4 + 4);
  const double reads = p.head_dim / 4.0 * (TM * 2 + TN * 2);
  return cost(p, computed_scores(p, block_m, block_n), (bring_in + reads) / scores + 2);
}
// [/snippet]

std::string refuse_any(const Problem& p, const DeviceInfo&) {
  const std::int64_t blocks =
      std::int64_t{p.batch} * p.heads * ceil_div(p.seq, 32) * ceil_div(p.kv_seq, 8);
  if (p.operation != Operation::scores) return "it computes scores only";
  if (blocks > INT32_MAX) return "the grid would have more than 2^31 - 1 blocks";
  if (std::int64_t{std::max(p.seq, p.kv_seq)} * p.head_dim > INT32_MAX)
    return "one head's Q or K would have more than 2^31 - 1 elements";
  return "";
}

constexpr Variant kVariants[] = {
    {.name = "uncoalesced",
     .idea = "one thread a score, a warp down a column",
     .prior = nullptr,
     .operation = Operation::scores,
     .refuse = refuse_any,
     .workspace = nullptr,
     .cost = cost_uncoalesced,
     .launch = launch_uncoalesced},
    {.name = "coalesced",
     .idea = "one thread a score, a warp along a row",
     .prior = "uncoalesced",
     .operation = Operation::scores,
     .refuse = refuse_any,
     .workspace = nullptr,
     .cost = cost_coalesced,
     .launch = launch_coalesced},
    {.name = "shared_tiles",
     .idea = "32 x 32 tiles of Q and K in shared memory",
     .prior = "coalesced",
     .operation = Operation::scores,
     .refuse = refuse_any,
     .workspace = nullptr,
     .cost = cost_shared_tiles,
     .launch = launch_shared_tiles},
    {.name = "register_tiles",
     .idea = "8 x 8 scores a thread, 16-byte loads",
     .prior = "shared_tiles",
     .operation = Operation::scores,
     .refuse = refuse_any,
     .workspace = nullptr,
     .cost = cost_register_tiles,
     .launch = launch_best_register_tiles},
};

int best(const Problem&, const DeviceInfo&) { return 3; }

}  // namespace

const Stage stage_01_naive_qk{.name = "01_naive_qk",
                              .title = "S = scale * Q K^T on the CUDA cores",
                              .operation = Operation::scores,
                              .prior = nullptr,
                              .variants = kVariants,
                              .best = best,
                              .yardsticks = {}};

}  // namespace al
