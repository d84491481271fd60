// The record of chapter 05: all of attention in one kernel, divided by l once; and the way there
// from chapter 04, one change at a time.
#include "05_epilogue_norm_v2/stage.hpp"

#include <algorithm>
#include <cstdint>
#include <iterator>

#include "04_fused_v1/stage.hpp"
#include "05_epilogue_norm_v2/fused.cuh"
#include "05_epilogue_norm_v2/steps.hpp"

namespace al {
namespace {

using namespace fused2;

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
// As in chapter 04, but only what is visible is multiplied.
Cost cost(const Problem& p) {
  const double flops = minimum_work(p).flops;
  const double multiply_adds_of_a_warp = flops / 2 / 32;
  return {.ffma_flops = flops,
          .dram_bytes = minimum_work(p).bytes,
          .shared_wavefronts = multiply_adds_of_a_warp * (8 + 8) / 4 * 2 / 64};
}
// [/snippet]

template <unsigned CHANGES>
constexpr Variant step(const char* name, const char* prior, const char* idea) {
  return {.name = name,
          .idea = idea,
          .prior = prior,
          .operation = Operation::attention,
          .refuse = refuse_step,
          .workspace = nullptr,
          .cost = nullptr,
          .launch = launch_step<CHANGES>};
}

// [snippet rungs]
constexpr Variant kVariants[] = {
    step<kRung0>("chapter_04", kPriorStage, "this kernel with every change undone"),
    step<kRung1>("epilogue_norm", "chapter_04", "divide by l once, after the last tile"),
    step<kRung2>("exp2", "epilogue_norm", "scale * log2(e) in Q, exp becomes ex2"),
    step<kRung3>("early_exit", "exp2", "stop at the last key that anyone sees"),
    step<kRung4>("two_pass", "early_exit", "tiles without hidden keys in a loop without a mask"),
    step<kRung5>("by_length", "two_pass", "blocks dealt to the SMs by length"),
    step<kRung6>("padded_p", "by_length", "P's stores spread over the banks"),
    step<kRung7>("prefetch", "padded_p", "the next chunk is on its way"),
    step<kRung8>("skip_rescale", "prefetch", "O stays while no maximum grows by 2^8"),
    step<kAllChanges & ~kEpilogueNorm>("divide_in_loop", "skip_rescale",
                                       "all changes but the first: what does division cost?"),
    {.name = "fused",
     .idea = "all changes; the tile by head dim and grid",
     .prior = kPriorStage,
     .operation = Operation::attention,
     .refuse = refuse,
     .workspace = nullptr,
     .cost = cost,
     .launch = launch_best},
};
// [/snippet]

int best(const Problem&, const DeviceInfo&) { return std::size(kVariants) - 1; }

}  // namespace

const Stage stage_05_epilogue_norm_v2{.name = "05_epilogue_norm_v2",
                                      .title = "One division at the end, and seven more changes",
                                      .operation = Operation::attention,
                                      .prior = &stage_04_fused_v1,
                                      .variants = kVariants,
                                      .best = best,
                                      .yardsticks = {}};

}  // namespace al
