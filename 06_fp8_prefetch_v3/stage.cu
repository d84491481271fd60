// The record of chapter 06: tensor cores with 1, 2 and 3 tiles under way, in 16 bits and in 8; and
// 16-bit problems brought to 8 bits and back.
#include "06_fp8_prefetch_v3/stage.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "05_epilogue_norm_v2/stage.hpp"
#include "06_fp8_prefetch_v3/kernels.hpp"
#include "common/kernel_shape.cuh"

namespace al {

namespace fp8 {

// Small blocks, where two find room on an SM.
MmaShape best_mma(const Problem& p, DType dtype, const DeviceInfo& device) {
  const std::size_t two = 2 * shared_bytes_mma(dtype, p.head_dim, {2, 4});
  return {2, two <= device.shared_per_block ? 4 : 8};
}

// sm_90a's machine code runs on sm_90 alone.
bool takes_wgmma(const DeviceInfo& device) { return device.sm == 90; }

int key_groups_of_best(const Problem& p) {
  return takes_wgmma(device()) ? key_groups_wgmma(p) : ceil_div(p.kv_seq, 16);
}

void launch_best(const Problem& p, const Operands& operands, Stream stream) {
  takes_wgmma(device()) ? launch_wgmma(p, operands, stream)
                        : launch_mma(p, operands, best_mma(p, operands.dtype, device()), stream);
}

}  // namespace fp8

namespace {

using namespace fp8;

std::string refuse_any(const Problem& p) {
  const std::int64_t blocks = std::int64_t{p.batch} * p.heads * ceil_div(p.seq, 64);
  if (p.operation != Operation::attention) return "it computes the whole of attention only";
  if (p.head_dim != 64 && p.head_dim != 128 && p.head_dim != 256)
    return "its tiles are made for --head-dim 64, 128 and 256";
  if (p.dtype == DType::fp32) return "tensor cores take fp16, bf16, e4m3 or e5m2";
  if (!(p.scale > 0))
    return "the scale is part of a factor that must be positive: the largest score must stay the "
           "largest";
  if (blocks > INT32_MAX) return "the grid would have more than 2^31 - 1 blocks";
  if (std::int64_t{std::max(p.seq, p.kv_seq) + 1024} * p.head_dim > INT32_MAX)
    return "one head's Q, K or V would have more than 2^31 - 1 elements";
  if (std::int64_t{p.batch} * p.kv_heads * (p.kv_seq + 256) / 16 * (p.head_dim / 4) > INT32_MAX)
    return "K or V would have too many elements";
  return "";
}

// --- mma.sync ------------------------------------------------------------------------------------

template <int STAGES, int WARPS>
std::string refuse_mma(const Problem& p, const DeviceInfo& device) {
  if (const std::string why = refuse_any(p); !why.empty()) return why;
  if (STAGES != 2 && p.head_dim == 256)
    return "how many tiles are under way is compared at --head-dim 64 and 128";
  if (STAGES != 2 && p.dtype != DType::fp16 && p.dtype != DType::e4m3)
    return "how many tiles are under way is compared in fp16 and e4m3";
  if (p.dtype == DType::bf16 && device.sm < 80) return "bf16 needs sm_80 or newer";
  if (shared_bytes_mma(p.dtype, p.head_dim, {STAGES, WARPS}) > device.shared_per_block)
    return "its tiles need " +
           std::to_string(shared_bytes_mma(p.dtype, p.head_dim, {STAGES, WARPS})) +
           " bytes of shared memory a block, and this device has " +
           std::to_string(device.shared_per_block);
  return "";
}

int key_groups_mma(const Problem& p) { return ceil_div(p.kv_seq, 16); }

std::size_t tile_bytes(const Problem& p, int key_groups) {
  return std::size_t(p.batch) * p.kv_heads * key_groups * 16 * p.head_dim;
}

std::size_t workspace_mma(const Problem& p) {
  return is_fp8(p.dtype) ? tile_bytes(p, key_groups_mma(p)) : 0;
}

Operands operands_of(const Problem& p, const Arguments& a) {
  return {.dtype = p.dtype,
          .q = a.q,
          .k = a.k,
          .v = a.v,
          .scales = {a.q_scale, a.k_scale, a.v_scale},
          .out_dtype = p.out_dtype(),
          .out = a.out,
          .lse = a.lse};
}

// In 8 bits V is laid in tiles first: part of the time.
Operands with_tiles(const Problem& p, const Arguments& a, int key_groups, Stream stream) {
  Operands operands = operands_of(p, a);
  if (is_fp8(p.dtype)) {
    launch_tile_V(p, a.v, static_cast<std::uint8_t*>(a.workspace), key_groups, stream);
    operands.v = a.workspace;
    operands.key_groups = key_groups;
  }
  return operands;
}

template <int STAGES, int WARPS>
void launch_mma_shape(const Problem& p, const Arguments& a, Stream stream) {
  launch_mma(p, with_tiles(p, a, key_groups_mma(p), stream), {STAGES, WARPS}, stream);
}

Cost cost_mma(const Problem& p) {
  return {.mma_flops = minimum_work(p).flops, .dram_bytes = minimum_work(p).bytes};
}

// --- wgmma ---------------------------------------------------------------------------------------

std::string refuse_hopper(const Problem& p, const DeviceInfo& device) {
  if (const std::string why = refuse_any(p); !why.empty()) return why;
  if (!is_fp8(p.dtype)) return "it takes e4m3 and e5m2; chapter 09 has the kernel for 16 bits";
  if (!takes_wgmma(device)) return "wgmma is there on sm_90 only";
  return "";
}

std::size_t workspace_hopper(const Problem& p) { return tile_bytes(p, key_groups_wgmma(p)); }

void launch_hopper(const Problem& p, const Arguments& a, Stream stream) {
  launch_wgmma(p, with_tiles(p, a, key_groups_wgmma(p), stream), stream);
}

// [snippet cut]
// In 8 bits wgmma lines 32 products and the sum so far up under the largest of them, and cuts off
// what lies 2^-13 below its leading bit. So each of the D + D / 32 numbers that make a score is off
// by anything up to 2^-13 of the largest; as a root mean square by 1 / √3 of that, and all together
// by √(D + D / 32) times as much. Three times that: on an H200 the largest error of all tests' rows
// is 0.85 of it, for a row's LSE averages over its keys. The emulator's sums are exact.
Slack slack_hopper(const Problem& p) {
  if (device().backend == "emulator") return {};
  return {.products = 3 * std::sqrt((p.head_dim + p.head_dim / 32) / 3.0) * 0x1p-13};
}
// [/snippet]

Cost cost_hopper(const Problem& p) {
  return {.tensor_fp8_flops = minimum_work(p).flops,
          .exponentials = minimum_work(p).flops / 4 / p.head_dim,
          .dram_bytes = minimum_work(p).bytes};
}

// --- 16 bits to 8 and back -----------------------------------------------------------------------

std::string refuse_quantised(const Problem& p, const DeviceInfo& device) {
  if (is_fp8(p.dtype) || p.dtype == DType::fp32)
    return "it takes fp16 or bf16 and makes e4m3 of it";
  Problem in8 = p;
  in8.dtype = DType::e4m3;
  return refuse_mma<2, 8>(in8, device);
}

std::size_t workspace_quantised(const Problem& p) {
  return Tensors8::bytes(p, key_groups_of_best(p));
}

template <bool ROTATE>
void launch_quantised(const Problem& p, const Arguments& a, Stream stream) {
  const int key_groups = key_groups_of_best(p);
  const Tensors8 x(p, key_groups, a.workspace);
  launch_quantise(p, {.rotate = ROTATE}, a, x, key_groups, stream);
  launch_best(p,
              {.dtype = DType::e4m3,
               .q = x.q,
               .k = x.k,
               .v = x.v_tiles,
               .scales = {x.q_scale, x.k_scale, x.v_scale},
               .key_groups = key_groups,
               .out_dtype = p.out_dtype(),
               .out = a.out,
               .lse = a.lse},
              stream);
}

// Q, K and V read twice more, once for the largest, and their 8 bits written.
Cost cost_quantised(const Problem& p) {
  Cost cost = takes_wgmma(device()) ? cost_hopper(p) : cost_mma(p);
  cost.dram_bytes += 2.5 * p.in_bytes();
  return cost;
}

// [snippet slack]
// An 8-bit number x is off by up to half a step, x/16 in e4m3; over all x that is 0.026 x as a root
// mean square. A score adds up D products of two such numbers: it is off by 0.026 · √2 of its own
// size. The weight's error adds to that of V's own rounding. Eight times that, for the largest
// error of thousands.
Slack slack_quantised(const Problem&) {
  constexpr double kRounding = 0.0265;
  return {.scores = 8 * kRounding * 1.4143, .out = 8 * kRounding};
}
// [/snippet]

constexpr Variant kVariants[] = {
    {.name = "mma_1_stage",
     .idea = "tensor cores (mma.sync); a tile is asked for when it is needed",
     .prior = kPriorStage,
     .operation = Operation::attention,
     .features = {.fp8 = true},
     .refuse = refuse_mma<1, 8>,
     .workspace = workspace_mma,
     .cost = cost_mma,
     .launch = launch_mma_shape<1, 8>},
    {.name = "mma_2_stages",
     .idea = "the next tile is on its way while this one is multiplied",
     .prior = "mma_1_stage",
     .operation = Operation::attention,
     .features = {.fp8 = true},
     .refuse = refuse_mma<2, 8>,
     .workspace = workspace_mma,
     .cost = cost_mma,
     .launch = launch_mma_shape<2, 8>},
    {.name = "mma_3_stages",
     .idea = "the next two are",
     .prior = "mma_2_stages",
     .operation = Operation::attention,
     .features = {.fp8 = true},
     .refuse = refuse_mma<3, 8>,
     .workspace = workspace_mma,
     .cost = cost_mma,
     .launch = launch_mma_shape<3, 8>},
    {.name = "small_1_stage",
     .idea = "one stage in blocks of 4 warps: one computes while another waits",
     .prior = "mma_1_stage",
     .operation = Operation::attention,
     .features = {.fp8 = true},
     .refuse = refuse_mma<1, 4>,
     .workspace = workspace_mma,
     .cost = cost_mma,
     .launch = launch_mma_shape<1, 4>},
    {.name = "small_2_stages",
     .idea = "both: small blocks, and the next tile on its way",
     .prior = "small_1_stage",
     .operation = Operation::attention,
     .features = {.fp8 = true},
     .refuse = refuse_mma<2, 4>,
     .workspace = workspace_mma,
     .cost = cost_mma,
     .launch = launch_mma_shape<2, 4>},
    {.name = "hopper",
     .idea = "TMA, wgmma, and warps that divide the labour",
     .prior = "small_2_stages",
     .operation = Operation::attention,
     .features = {.fp8 = true},
     .refuse = refuse_hopper,
     .workspace = workspace_hopper,
     .cost = cost_hopper,
     .slack = slack_hopper,
     .launch = launch_hopper},
    {.name = "quantised",
     .idea = "fp16 or bf16 brought to e4m3 first, a factor a head; that time included",
     .prior = kPriorStage,
     .operation = Operation::attention,
     .refuse = refuse_quantised,
     .workspace = workspace_quantised,
     .cost = cost_quantised,
     .slack = slack_quantised,
     .launch = launch_quantised<false>},
    {.name = "quantised_rotated",
     .idea = "the same with Q and K rotated by a Hadamard matrix",
     .prior = "quantised",
     .operation = Operation::attention,
     .refuse = refuse_quantised,
     .workspace = workspace_quantised,
     .cost = cost_quantised,
     .slack = slack_quantised,
     .launch = launch_quantised<true>},
};

int best(const Problem& p, const DeviceInfo& device) {
  if (refuse_hopper(p, device).empty()) return 5;
  return best_mma(p, p.dtype, device).warps == 4 ? 4 : 1;
}

}  // namespace

const Stage stage_06_fp8_prefetch_v3{.name = "06_fp8_prefetch_v3",
                                     .title = "8-bit operands, and tiles that are on their way",
                                     .operation = Operation::attention,
                                     .prior = &stage_05_epilogue_norm_v2,
                                     .variants = kVariants,
                                     .best = best,
                                     .yardsticks = {}};

}  // namespace al
