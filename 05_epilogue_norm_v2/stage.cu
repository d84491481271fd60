// The record of chapter 05: all of attention in one kernel.
#include "05_epilogue_norm_v2/stage.hpp"

#include <algorithm>
#include <cstdint>

#include "04_fused_v1/stage.hpp"
#include "05_epilogue_norm_v2/fused.cuh"

namespace al {
namespace {

using namespace fused2;

std::string refuse(const Problem& p, const DeviceInfo&) {
  const std::int64_t blocks = std::int64_t{p.batch} * p.heads * ceil_div(p.seq, 32);
  if (p.operation != Operation::attention) return "it computes the whole of attention only";
  if (blocks > INT32_MAX) return "the grid would have more than 2^31 - 1 blocks";
  if (std::int64_t{std::max(p.seq, p.kv_seq)} * p.head_dim > INT32_MAX)
    return "one head's Q, K or V would have more than 2^31 - 1 elements";
  return "";
}

void launch_best(const Problem& p, const Arguments& a, Stream stream) {
  switch (p.head_dim) {
    case 16:
      return launch_fused<16, 128, 32, 8, 8>(p, a, stream);
    case 32:
      return launch_fused<32, 128, 64, 8, 8>(p, a, stream);
    case 64:
      return launch_fused<64, 128, 64, 8, 8>(p, a, stream);
    case 128:
      return launch_fused<128, 64, 128, 8, 8>(p, a, stream);
    default:
      return launch_fused<256, 64, 64, 8, 4>(p, a, stream);
  }
}

Cost cost(const Problem& p) {
  return {.ffma_flops = minimum_work(p).flops, .dram_bytes = minimum_work(p).bytes};
}

constexpr Variant kVariants[] = {
    {.name = "fused",
     .idea = "one kernel; O is divided by l once, at the end",
     .prior = kPriorStage,
     .operation = Operation::attention,
     .refuse = refuse,
     .workspace = nullptr,
     .cost = cost,
     .launch = launch_best},
};

int best(const Problem&, const DeviceInfo&) { return 0; }

}  // namespace

const Stage stage_05_epilogue_norm_v2{.name = "05_epilogue_norm_v2",
                                      .title = "All of attention in one kernel",
                                      .operation = Operation::attention,
                                      .prior = &stage_04_fused_v1,
                                      .variants = kVariants,
                                      .best = best,
                                      .yardsticks = {}};

}  // namespace al
