// The record of chapter 02: three softmax kernels, and the pipeline scores → probabilities.
#include "02_softmax/stage.hpp"

#include <cstdint>

#include "01_naive_qk/stage.hpp"
#include "02_softmax/softmax.cuh"

namespace al {
namespace {

using namespace softmax;

// --- softmax: S → P -----------------------------------------------------------------------------

std::string refuse_softmax(const Problem& p, const DeviceInfo&) {
  if (p.operation != Operation::softmax) return "it computes P = softmax(S) only";
  if (p.q_rows() > INT32_MAX) return "S has more than 2^31 - 1 rows";
  return "";
}

// [snippet costs]
// S once and P once: a block reads its row again while a cache still has it, so DRAM sees no more
// than this of any variant.
Cost cost(const Problem& p, double entries_per_wavefront, double passes) {
  const double bytes = minimum_work(p).bytes;
  const double entries = bytes / (bytes_of(p.score_dtype()) + bytes_of(p.dtype));
  return {.dram_bytes = bytes, .shared_wavefronts = entries / entries_per_wavefront * passes};
}

// The load/store unit: a warp moves an entry a lane at a time, or 16 bytes a lane in four passes.
Cost cost_three_pass(const Problem& p) { return cost(p, 32, 3 + 1); }
Cost cost_online(const Problem& p) { return cost(p, 128.0 / bytes_of(p.score_dtype()), 2 + 1); }
Cost cost_one_pass(const Problem& p) {
  if (p.kv_seq > kLongestRowInRegisters) return cost_online(p);
  return cost(p, 128.0 / bytes_of(p.score_dtype()), 1 + 1);
}
// [/snippet]

// --- pipeline: Q, K → P -------------------------------------------------------------------------

// [snippet pipeline]
// Chapter 01's best kernel leaves fp32 scores in the workspace, and the softmax takes them from
// there.
Problem scores_of(Problem p) {
  p.operation = Operation::scores;
  return p;
}
Problem softmax_of(Problem p) {
  p.operation = Operation::softmax;
  p.fp32_scores = true;
  return p;
}
const Variant& best_scores(const Problem& p) {
  return stage_01_naive_qk.variants[stage_01_naive_qk.best(p, device())];
}

std::size_t workspace_pipeline(const Problem& p) { return p.score_elements() * sizeof(float); }

void launch_pipeline(const Problem& p, const Arguments& a, Stream stream) {
  const Problem scores = scores_of(p), softmax = softmax_of(p);
  best_scores(scores).launch(scores, {.q = a.q, .k = a.k, .out = a.workspace}, stream);
  launch_one_pass(softmax, {.s = a.workspace, .out = a.out, .lse = a.lse}, stream);
}
// [/snippet]

std::string refuse_pipeline(const Problem& p, const DeviceInfo& device) {
  if (p.operation != Operation::probabilities) return "it computes P = softmax(scale Q K^T) only";
  const Problem scores = scores_of(p);
  const std::string why = best_scores(scores).refuse(scores, device);
  return why.empty() ? refuse_softmax(softmax_of(p), device) : why;
}

// The two kernels' needs added up, as if each could run beside the other.
Cost cost_pipeline(const Problem& p) {
  const Problem scores = scores_of(p);
  const Cost first = best_scores(scores).cost(scores), second = cost_one_pass(softmax_of(p));
  return {.ffma_flops = first.ffma_flops,
          .dram_bytes = first.dram_bytes + second.dram_bytes,
          .shared_wavefronts = first.shared_wavefronts + second.shared_wavefronts};
}

constexpr Variant kVariants[] = {
    {.name = "three_pass",
     .idea = "a block a row, read three times, entry by entry",
     .prior = nullptr,
     .operation = Operation::softmax,
     .refuse = refuse_softmax,
     .workspace = nullptr,
     .cost = cost_three_pass,
     .launch = launch_three_pass},
    {.name = "one_pass",
     .idea = "the row in registers, 16-byte loads (over 16384 entries: online)",
     .prior = "three_pass",
     .operation = Operation::softmax,
     .refuse = refuse_softmax,
     .workspace = nullptr,
     .cost = cost_one_pass,
     .launch = launch_one_pass},
    {.name = "online",
     .idea = "maximum and sum in one pass, rows of any length",
     .prior = "one_pass",
     .operation = Operation::softmax,
     .refuse = refuse_softmax,
     .workspace = nullptr,
     .cost = cost_online,
     .launch = launch_online},
    {.name = "pipeline",
     .idea = "chapter 01's best, fp32 scores in memory, one_pass",
     .prior = kPriorStage,
     .operation = Operation::probabilities,
     .refuse = refuse_pipeline,
     .workspace = workspace_pipeline,
     .cost = cost_pipeline,
     .launch = launch_pipeline},
};

int best(const Problem&, const DeviceInfo&) { return 3; }

}  // namespace

const Stage stage_02_softmax{.name = "02_softmax",
                             .title = "P = softmax(S), by rows",
                             .operation = Operation::probabilities,
                             .prior = &stage_01_naive_qk,
                             .variants = kVariants,
                             .best = best,
                             .yardsticks = {}};

}  // namespace al
