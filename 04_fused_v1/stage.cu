// The record of chapter 04: all of attention in one kernel.
#include "04_fused_v1/stage.hpp"

#include <algorithm>
#include <cstdint>

#include "03_pv/stage.hpp"
#include "04_fused_v1/fused.cuh"

namespace al {
namespace {

using namespace fused1;

template <typename T, int D>
void launch_large_or_small(const Problem& p, const Arguments& a, Stream stream) {
  using Large = LargeTile<T, D>;
  using Small = SmallTile<T, D>;
  choose_large<Large>(p, device()) ? launch_tile<Large>(p, a, stream)
                                   : launch_tile<Small>(p, a, stream);
}

void launch_best(const Problem& p, const Arguments& a, Stream stream) {
  dispatch(p.dtype, [&]<typename T>(T) {
    dispatch_head_dim(p.head_dim, [&]<int D>(std::integral_constant<int, D>) {
      launch_large_or_small<T, D>(p, a, stream);
    });
  });
}

std::string refuse(const Problem& p, const DeviceInfo& device) {
  if (p.operation != Operation::attention) return "it computes the whole of attention only";
  if (std::int64_t{p.batch} * p.heads * ceil_div(p.seq, 32) > INT32_MAX)
    return "the grid would have more than 2^31 - 1 blocks";
  if (std::int64_t{std::max(p.seq, p.kv_seq)} * p.head_dim > INT32_MAX)
    return "one head's Q, K or V would have more than 2^31 - 1 elements";
  std::size_t needed = 0;
  dispatch(p.dtype, [&]<typename T>(T) {
    dispatch_head_dim(p.head_dim, [&]<int D>(std::integral_constant<int, D>) {
      needed = SmallTile<T, D>::shared();
    });
  });
  if (device.shared_per_block < needed)
    return "a block needs " + std::to_string(needed / 1024) +
           " KiB of shared memory, and there are " + std::to_string(device.shared_per_block / 1024);
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
