// The record of chapter 07: decoding.
#include "07_flash_decoding/stage.hpp"

#include <algorithm>
#include <cstdint>

#include "05_epilogue_norm_v2/stage.hpp"
#include "07_flash_decoding/split.cuh"
#include "07_flash_decoding/tensor.cuh"

namespace al {

namespace decoding {

Plan make_plan(const Problem& p, const Appetite& appetite, const DeviceInfo& device, int splits) {
  Plan plan;
  plan.row_tiles = ceil_div(p.group() * p.seq, appetite.rows);
  plan.heads = p.batch * p.kv_heads;
  const int units = ceil_div(p.kv_seq, appetite.keys);
  const std::int64_t without = std::int64_t{plan.heads} * plan.row_tiles;
  const std::int64_t slots = std::int64_t{device.sms} * appetite.blocks_per_sm;
  if (splits == 0) splits = static_cast<int>(std::max<std::int64_t>(1, slots / without));
  const int units_each = ceil_div(units, std::min(splits, units));
  plan.chunk = units_each * appetite.keys;
  plan.splits = ceil_div(units, units_each);
  return plan;
}

}  // namespace decoding

namespace {

using namespace decoding;

constexpr int kMostQueries = 16;

// f(std::integral_constant<int, D>) for the head dims there are.
template <typename F>
auto with_head_dim(int head_dim, F&& f) {
  if (head_dim == 64) return f(std::integral_constant<int, 64>{});
  if (head_dim == 128) return f(std::integral_constant<int, 128>{});
  return f(std::integral_constant<int, 256>{});
}

std::string refuse(const Problem& p, const DeviceInfo&) {
  if (p.operation != Operation::attention) return "it computes the whole of attention only";
  if (p.head_dim < 64) return "its head dims are 64, 128 and 256";
  if (p.seq > kMostQueries)
    return "it takes at most 16 queries of a sequence (--seq): chapter 05 is for more";
  if (std::int64_t{p.kv_seq} * p.head_dim > INT32_MAX)
    return "one head's K or V would have more than 2^31 - 1 elements";
  return "";
}

std::string refuse_tensor(const Problem& p, const DeviceInfo& device) {
  if (const std::string why = refuse(p, device); !why.empty()) return why;
  if (p.dtype == DType::fp32) return "tensor cores take fp16 and bf16 (--dtype)";
  if (p.dtype == DType::bf16 && device.sm < 80) return "tensor cores take bf16 from sm_80 on";
  const DType cache = p.cache_dtype();
  if (cache != p.dtype && (cache != DType::e4m3 || p.dtype != DType::fp16))
    return "K and V have Q's dtype, or e4m3 with Q in fp16 (--kv-dtype)";
  return "";
}

// --- CUDA cores ----------------------------------------------------------------------------------

// f(tile) with SplitTile<T, D, ROWS>{}.
template <int ROWS, typename F>
auto with_split_tile(const Problem& p, F&& f) {
  return with_head_dim(p.head_dim, [&](auto D) {
    switch (p.dtype) {
      case DType::fp32:
        return f(SplitTile<float, D, ROWS>{});
      case DType::bf16:
        return f(SplitTile<__nv_bfloat16, D, ROWS>{});
      default:
        return f(SplitTile<__half, D, ROWS>{});
    }
  });
}

template <int ROWS>
Plan split_plan(const Problem& p) {
  return with_split_tile<ROWS>(p, [&]<typename Tile>(Tile) {
    return make_plan(p, {Tile::ROWS, Tile::BLOCK_KEYS, Tile::BLOCKS_PER_SM}, device());
  });
}

template <int ROWS>
std::size_t workspace_split(const Problem& p) {
  return Job::workspace_bytes(p, split_plan<ROWS>(p));
}
template <int ROWS>
std::size_t zeroed_split(const Problem& p) {
  return Job::ticket_bytes(split_plan<ROWS>(p));
}
template <int ROWS, bool ONE_LAUNCH>
void launch_split_rows(const Problem& p, const Arguments& a, Stream stream) {
  with_split_tile<ROWS>(p, [&]<typename Tile>(Tile) {
    launch_split<Tile>(p, a, split_plan<ROWS>(p), ONE_LAUNCH, stream);
  });
}

// --- tensor cores --------------------------------------------------------------------------------

template <typename F>
auto with_tensor_tile(const Problem& p, F&& f) {
  return with_head_dim(p.head_dim, [&](auto D) {
    if (p.cache_dtype() == DType::e4m3) return f(TensorTile<__half, __nv_fp8_e4m3, D>{});
    if (p.dtype == DType::bf16) return f(TensorTile<__nv_bfloat16, __nv_bfloat16, D>{});
    return f(TensorTile<__half, __half, D>{});
  });
}

Plan tensor_plan(const Problem& p) {
  return with_tensor_tile(p, [&]<typename Tile>(Tile) {
    return make_plan(p, {Tile::ROWS, Tile::BLOCK_KEYS, Tile::BLOCKS_PER_SM}, device());
  });
}
std::size_t workspace_tensor(const Problem& p) { return Job::workspace_bytes(p, tensor_plan(p)); }
std::size_t zeroed_tensor(const Problem& p) { return Job::ticket_bytes(tensor_plan(p)); }
void launch_tensor_cores(const Problem& p, const Arguments& a, Stream stream) {
  with_tensor_tile(p,
                   [&]<typename Tile>(Tile) { launch_tensor<Tile>(p, a, tensor_plan(p), stream); });
}

Cost cost(const Problem& p) { return {.dram_bytes = minimum_work(p).bytes}; }

constexpr Variant kVariants[] = {
    {.name = "split",
     .idea = "each head's keys over many blocks; a second kernel merges",
     .prior = kPriorStage,
     .operation = Operation::attention,
     .features = {.kv_len = true, .pages = true},
     .refuse = refuse,
     .workspace = workspace_split<1>,
     .zeroed = nullptr,
     .cost = cost,
     .launch = launch_split_rows<1, false>},
    {.name = "one_launch",
     .idea = "the last block of a head to finish merges",
     .prior = "split",
     .operation = Operation::attention,
     .features = {.kv_len = true, .pages = true},
     .refuse = refuse,
     .workspace = workspace_split<1>,
     .zeroed = zeroed_split<1>,
     .cost = cost,
     .launch = launch_split_rows<1, true>},
    {.name = "shared_kv",
     .idea = "rows of Q that share K and V are handled together, four at a time",
     .prior = "one_launch",
     .operation = Operation::attention,
     .features = {.kv_len = true, .pages = true},
     .refuse = refuse,
     .workspace = workspace_split<4>,
     .zeroed = zeroed_split<4>,
     .cost = cost,
     .launch = launch_split_rows<4, true>},
    {.name = "tensor_cores",
     .idea = "eight rows at a time by mma.sync, from memory straight into registers",
     .prior = "shared_kv",
     .operation = Operation::attention,
     .features = {.kv_dtype = true, .kv_len = true, .pages = true},
     .refuse = refuse_tensor,
     .workspace = workspace_tensor,
     .zeroed = zeroed_tensor,
     .cost = cost,
     .launch = launch_tensor_cores},
};

int best(const Problem& p, const DeviceInfo& device) {
  if (refusal(kVariants[3], p, device).empty()) return 3;
  return p.group() * p.seq > 1 ? 2 : 1;
}

}  // namespace

const Stage stage_07_flash_decoding{.name = "07_flash_decoding",
                                    .title = "Decoding: one query against a long cache",
                                    .operation = Operation::attention,
                                    .prior = &stage_05_epilogue_norm_v2,
                                    .variants = kVariants,
                                    .best = best,
                                    .yardsticks = {},
                                    .default_seq = 1};

}  // namespace al
