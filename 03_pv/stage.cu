// The record of chapter 03: three ways to multiply by V, and the whole of attention in three
// kernels.
#include "03_pv/stage.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "02_softmax/stage.hpp"
#include "03_pv/library_pieces.cuh"
#include "03_pv/pv.cuh"
#ifndef AL_EMULATOR
#include "common/yardsticks/cublas.hpp"
#endif

namespace al {
namespace {

using namespace pv;

// --- pv: P, V → O -------------------------------------------------------------------------------

std::string refuse_pv(const Problem& p, const DeviceInfo&) {
  const std::int64_t blocks =
      std::int64_t{p.batch} * p.heads * ceil_div(p.seq, 8) * ceil_div(p.head_dim, 16);
  if (p.operation != Operation::pv) return "it computes O = P V only";
  if (blocks > INT32_MAX) return "the grid would have more than 2^31 - 1 blocks";
  if (std::int64_t{std::max(p.seq, p.kv_seq)} * p.head_dim > INT32_MAX)
    return "one head's V or O would have more than 2^31 - 1 elements";
  if (std::int64_t{128} * p.kv_seq > INT32_MAX)
    return "128 rows of P would have more than 2^31 - 1 elements";
  return "";
}

// Entries of P that are multiplied: whole chunks of `block_k` keys up to the last key that some
// row of the tile sees.
double multiplied_entries(const Problem& p, int block_m, int block_k) {
  double entries = 0;
  for (int row0 = 0; row0 < p.seq; row0 += block_m) {
    const int rows = std::min(block_m, p.seq - row0);
    const int visible = std::max(0, p.visible_keys(row0 + rows - 1));
    entries += 1.0 * rows * ceil_div(visible, block_k) * block_k;
  }
  return entries * p.batch * p.heads;
}

double visible_entries(const Problem& p) { return minimum_work(p).flops / (2.0 * p.head_dim); }

// `wavefronts`: for one multiply-add of a warp, which is 32 columns of one row of P.
Cost cost(const Problem& p, double entries, double wavefronts) {
  const double warps = entries * ceil_div(p.head_dim, 32);
  return {.ffma_flops = 2 * 32 * warps,
          .dram_bytes = minimum_work(p).bytes,
          .shared_wavefronts = warps * wavefronts};
}

// [snippet costs]
// Wavefronts that a warp's multiply-add causes: the passes its loads and stores make through the
// load/store unit, one a clock.
//
// P: the same word for all lanes; V: 32 neighbours.
Cost cost_coalesced(const Problem& p) { return cost(p, visible_entries(p), 1 + 1); }
// For 32 keys: two loads and two stores bring them in; then V is read word by word, and P, the
// same for all lanes, four words at a time in two passes.
Cost cost_shared_tiles(const Problem& p) {
  const double bring_in = 2 + 2, read_V = 32, read_P = 32 / 4 * 2;
  return cost(p, multiplied_entries(p, 32, 32), (bring_in + read_V + read_P) / 32);
}
// A thread reads, for four keys, eight float4 of P and eight of V, two passes each, and multiplies
// 256 times. Both large tiles take 12 copies a thread for 32 keys, 2048 multiply-adds; a copy
// writes 16 bytes a lane, four passes; fp16 is written, read and written again wider: eight.
Cost cost_register_tiles(const Problem& p) {
  const double reads = (8 * 2 + 8 * 2) / 256.0;
  const double copies = 12 * (p.dtype == DType::fp32 ? 4 : 8) / 2048.0;
  return cost(p, multiplied_entries(p, 128, 32), reads + copies);
}
// [/snippet]

// [snippet choose]
// Large tiles reuse most, small ones give every SM something to do: large once they make 512
// threads for each.
void launch_best_pv_tiles(const Problem& p, const Arguments& a, Stream stream) {
  const std::int64_t large_tiles = std::int64_t{p.batch} * p.heads * ceil_div(p.seq, 128);
  const bool large = large_tiles * std::min(p.head_dim, 128) * 2 >= 512 * device().sms;
  if (p.head_dim == 16) {
    launch_pv_register_tiles<128, 16, 16, 8, 4>(p, a, stream);
  } else if (p.head_dim == 32) {
    launch_pv_register_tiles<128, 32, 16, 8, 4>(p, a, stream);
  } else if (!large) {
    launch_pv_register_tiles<32, 64, 16, 4, 4>(p, a, stream);
  } else if (p.head_dim == 64) {
    launch_pv_register_tiles<128, 64, 32, 8, 8>(p, a, stream);
  } else {
    launch_pv_register_tiles<64, 128, 32, 8, 8>(p, a, stream);
  }
}
// [/snippet]

// --- pipeline: Q, K, V → O ----------------------------------------------------------------------

// [snippet pipeline]
// P, and behind it what chapter 02 needs to make P: the scores.
struct Parts {
  Problem probabilities, pv;
  const Variant* first;  // chapter 02's best: Q, K → P
  std::size_t P_bytes;   // rounded up, so that what follows is aligned

  explicit Parts(const Problem& p) : probabilities(p), pv(p) {
    probabilities.operation = Operation::probabilities;
    pv.operation = Operation::pv;
    first = &stage_02_softmax.variants[stage_02_softmax.best(probabilities, device())];
    P_bytes = (p.score_elements() * bytes_of(p.dtype) + 255) / 256 * 256;
  }
};

std::size_t workspace_pipeline(const Problem& p) {
  const Parts parts(p);
  return parts.P_bytes + parts.first->workspace(parts.probabilities);
}

void launch_pipeline(const Problem& p, const Arguments& a, Stream stream) {
  const Parts parts(p);
  std::byte* P = static_cast<std::byte*>(a.workspace);
  parts.first->launch(parts.probabilities,
                      {.q = a.q, .k = a.k, .out = P, .lse = a.lse, .workspace = P + parts.P_bytes},
                      stream);
  launch_best_pv_tiles(parts.pv, {.v = a.v, .p = P, .out = a.out}, stream);
}
// [/snippet]

std::string refuse_pipeline(const Problem& p, const DeviceInfo& device) {
  if (p.operation != Operation::attention) return "it computes the whole of attention only";
  const Parts parts(p);
  const std::string why = parts.first->refuse(parts.probabilities, device);
  return why.empty() ? refuse_pv(parts.pv, device) : why;
}

// The kernels' needs added up, as if each could run beside the others.
Cost cost_pipeline(const Problem& p) {
  const Parts parts(p);
  const Cost first = parts.first->cost(parts.probabilities), last = cost_register_tiles(parts.pv);
  return {.ffma_flops = first.ffma_flops + last.ffma_flops,
          .dram_bytes = first.dram_bytes + last.dram_bytes,
          .shared_wavefronts = first.shared_wavefronts + last.shared_wavefronts};
}

constexpr Variant kVariants[] = {
    {.name = "coalesced",
     .idea = "one thread an output, a warp along a row of V",
     .prior = nullptr,
     .operation = Operation::pv,
     .refuse = refuse_pv,
     .workspace = nullptr,
     .cost = cost_coalesced,
     .launch = launch_pv_coalesced},
    {.name = "shared_tiles",
     .idea = "32 x 32 tiles of P and V in shared memory",
     .prior = "coalesced",
     .operation = Operation::pv,
     .refuse = refuse_pv,
     .workspace = nullptr,
     .cost = cost_shared_tiles,
     .launch = launch_pv_shared_tiles},
    {.name = "register_tiles",
     .idea = "8 x 8 outputs a thread, the next tiles on their way",
     .prior = "shared_tiles",
     .operation = Operation::pv,
     .refuse = refuse_pv,
     .workspace = nullptr,
     .cost = cost_register_tiles,
     .launch = launch_best_pv_tiles},
    {.name = "pipeline",
     .idea = "all of attention: scores, softmax and this; S and P in memory",
     .prior = kPriorStage,
     .operation = Operation::attention,
     .refuse = refuse_pipeline,
     .workspace = workspace_pipeline,
     .cost = cost_pipeline,
     .launch = launch_pipeline},
};

int best(const Problem&, const DeviceInfo&) { return 3; }

// --- yardstick: the same three steps from a library's pieces -------------------------------------

#ifdef AL_EMULATOR
constexpr std::span<const Variant> kYardsticks;  // libraries need a GPU
#else

// fp32 without TF32: what is outside the error budget is no yardstick.
cublas::Units units_of(const Problem& p) {
  return p.dtype == DType::fp32 ? cublas::Units::fp32 : cublas::Units::tensor;
}

struct Pieces {
  Problem softmax;
  cublas::Gemm scores, pv;
  std::size_t S_bytes, P_bytes;  // rounded up

  Pieces(const Problem& p, const Arguments& a) : softmax(p) {
    softmax.operation = Operation::softmax;
    softmax.fp32_scores = true;
    const auto round_up = [](std::size_t bytes) { return (bytes + 255) / 256 * 256; };
    S_bytes = round_up(p.score_elements() * sizeof(float));
    P_bytes = round_up(p.score_elements() * bytes_of(p.dtype));
    scores = cublas::scores(p, units_of(p), a.q, a.k, S(a));
    pv = cublas::pv(p, units_of(p), P(a), a.v, a.out);
  }
  std::byte* S(const Arguments& a) const {
    return static_cast<std::byte*>(a.workspace) + cublas::kWorkspaceBytes;
  }
  std::byte* P(const Arguments& a) const { return S(a) + S_bytes; }
};

std::string refuse_pieces(const Problem& p, const DeviceInfo& device) {
  if (p.operation != Operation::attention) return "it computes the whole of attention only";
  if (p.q_rows() > INT32_MAX) return "S has more than 2^31 - 1 rows";
  return cublas::refuse(p, units_of(p), device);
}

std::size_t workspace_pieces(const Problem& p) {
  const Pieces pieces(p, {});
  return cublas::kWorkspaceBytes + pieces.S_bytes + pieces.P_bytes;
}

// All of S and P, masked or not: S is written and read in fp32, P in the inputs' dtype.
Cost cost_pieces(const Problem& p) {
  const double flops = 4.0 * p.score_elements() * p.head_dim;
  const bool tensor = units_of(p) == cublas::Units::tensor;
  return {.ffma_flops = tensor ? 0 : flops,
          .tensor_flops = tensor ? flops : 0,
          .dram_bytes = minimum_work(p).bytes +
                        2.0 * p.score_elements() * (sizeof(float) + bytes_of(p.dtype))};
}

void launch_pieces(const Problem& p, const Arguments& a, Stream stream) {
  const Pieces pieces(p, a);
  cublas::gemm(pieces.scores, a.workspace, stream);
  find_variant(stage_02_softmax, "one_pass")
      .launch(pieces.softmax, {.s = pieces.S(a), .out = pieces.P(a), .lse = a.lse}, stream);
  if (p.causal) launch_zero_masked(p, pieces.P(a), stream);
  cublas::gemm(pieces.pv, a.workspace, stream);
}

constexpr Variant kYardsticks[] = {
    {.name = "library_pieces",
     .idea = "cuBLAS (tensor cores), our softmax, cuBLAS; computes the masked half too",
     .prior = nullptr,
     .operation = Operation::attention,
     .refuse = refuse_pieces,
     .workspace = workspace_pieces,
     .cost = cost_pieces,
     .launch = launch_pieces},
};
#endif

}  // namespace

const Stage stage_03_pv{.name = "03_pv",
                        .title = "O = P V, and with it all of attention in three kernels",
                        .operation = Operation::attention,
                        .prior = &stage_02_softmax,
                        .variants = kVariants,
                        .best = best,
                        .yardsticks = kYardsticks};

}  // namespace al
