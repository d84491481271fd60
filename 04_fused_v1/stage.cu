// The record of chapter 04: all of attention in one kernel.
#include "04_fused_v1/stage.hpp"

#include <algorithm>
#include <cstdint>

#include "03_pv/stage.hpp"
#include "04_fused_v1/fused.cuh"

namespace al {
namespace {

using namespace fused1;

// [snippet choose]
// A large tile reuses most, many small ones keep every SM busy: small where large ones would not
// make two blocks for each SM, or do not fit into its shared memory.
template <typename Large, typename Small>
void launch_large_or_small(const Problem& p, const Arguments& a, Stream stream) {
  const std::int64_t blocks = std::int64_t{p.batch} * p.heads * ceil_div(p.seq, Large::BLOCK_M);
  const bool fits = Large::shared() <= device().shared_per_block;
  if (fits && blocks * Large::THREADS >= 256 * device().sms) {
    launch_tile<Large>(p, a, stream);
  } else {
    launch_tile<Small>(p, a, stream);
  }
}

void launch_best(const Problem& p, const Arguments& a, Stream stream) {
  dispatch(p.dtype, [&]<typename T>(T) {
    switch (p.head_dim) {  // FusedTile<T, D, BLOCK_M, BLOCK_N, TM, TN>
      case 16:
        return launch_large_or_small<FusedTile<T, 16, 128, 32, 8, 8>,
                                     FusedTile<T, 16, 32, 32, 4, 8>>(p, a, stream);
      case 32:
        return launch_large_or_small<FusedTile<T, 32, 128, 64, 8, 8>,
                                     FusedTile<T, 32, 32, 64, 4, 8>>(p, a, stream);
      case 64:
        return launch_large_or_small<FusedTile<T, 64, 128, 64, 8, 8>,
                                     FusedTile<T, 64, 32, 64, 4, 4>>(p, a, stream);
      case 128:
        return launch_large_or_small<FusedTile<T, 128, 128, 128, 8, 8>,
                                     FusedTile<T, 128, 32, 64, 4, 4>>(p, a, stream);
      default:
        return launch_large_or_small<FusedTile<T, 256, 128, 64, 8, 4>,
                                     FusedTile<T, 256, 32, 64, 4, 4>>(p, a, stream);
    }
  });
}
// [/snippet]

std::string refuse(const Problem& p, const DeviceInfo& device) {
  constexpr int kSmallestTile = 32;
  constexpr std::size_t kShared = FusedTile<float, 256, 32, 64, 4, 4>::shared();
  if (p.operation != Operation::attention) return "it computes the whole of attention only";
  if (std::int64_t{p.batch} * p.heads * ceil_div(p.seq, kSmallestTile) > INT32_MAX)
    return "the grid would have more than 2^31 - 1 blocks";
  if (std::int64_t{std::max(p.seq, p.kv_seq)} * p.head_dim > INT32_MAX)
    return "one head's Q, K or V would have more than 2^31 - 1 elements";
  if (device.shared_per_block < kShared)
    return "a block needs " + std::to_string(kShared / 1024) + " KiB of shared memory";
  return "";
}

// [snippet cost]
// Every tile of keys is multiplied, the masked half too. S, P and O never touch memory: what is
// read and written is Q, K, V and O once, the rest comes from L2. For 2 · TM · TN FLOPs a thread
// loads TM + TN numbers, 16 bytes at a time in two passes of a warp; a pass moves 128 bytes.
Cost cost(const Problem& p) {
  Problem full = p;
  full.causal = false;
  const double flops = minimum_work(full).flops;
  const double multiply_adds_of_a_warp = flops / 2 / 32;
  return {.ffma_flops = flops,
          .dram_bytes = minimum_work(p).bytes,
          .shared_wavefronts = multiply_adds_of_a_warp * (8 + 8) / 4 * 2 / 64};
}
// [/snippet]

constexpr Variant kVariants[] = {
    {.name = "fused",
     .idea = "one kernel; O is normalised after every tile of keys",
     .prior = kPriorStage,
     .operation = Operation::attention,
     .refuse = refuse,
     .workspace = nullptr,
     .cost = cost,
     .launch = launch_best},
};

int best(const Problem&, const DeviceInfo&) { return 0; }

}  // namespace

const Stage stage_04_fused_v1{.name = "04_fused_v1",
                              .title = "All of attention in one kernel",
                              .operation = Operation::attention,
                              .prior = &stage_03_pv,
                              .variants = kVariants,
                              .best = best,
                              .yardsticks = {}};

}  // namespace al
