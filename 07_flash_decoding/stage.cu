// The record of chapter 07: decoding.
#include "07_flash_decoding/stage.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "05_epilogue_norm_v2/stage.hpp"
#include "07_flash_decoding/split.cuh"
#include "07_flash_decoding/tensor.cuh"

namespace al {

namespace decoding {

// [snippet model]
// Blocks run in waves of as many as the GPU holds. A full wave reads at the speed of memory; in one
// that is not full a block gets more than its share, but no more than kMost times that. Each wave
// has to start and to end, and an SM could have read kWaveBytes in that time; a merge costs another
// kMergeBytes and the reading of the partial results, by one SM while the others are idle.
double predicted_bytes(const Problem& p, const Plan& plan, const Appetite& appetite,
                       const DeviceInfo& device) {
  constexpr double kMost = 1.25, kWaveBytes = 90e3, kMergeBytes = 50e3;
  const double slots = double(device.sms) * appetite.blocks_per_sm;
  const double chunk_bytes = 2.0 * plan.chunk * p.head_dim * bytes_of(p.cache_dtype());
  const double full_waves = std::floor(plan.blocks() / slots);
  const double rest = plan.blocks() - full_waves * slots;

  double bytes = full_waves * (slots * chunk_bytes + device.sms * kWaveBytes);
  if (rest > 0) {
    bytes += rest * chunk_bytes / std::min(1.0, kMost * rest / slots) + device.sms * kWaveBytes;
  }
  if (plan.splits > 1) {
    const double partial = sizeof(float) * p.head_dim * std::min(appetite.rows, p.group() * p.seq);
    bytes += device.sms * (kMergeBytes + plan.splits * partial);
  }
  return bytes;
}
// [/snippet]

Plan make_plan(const Problem& p, const Appetite& appetite, const DeviceInfo& device, int splits) {
  const int tiles = ceil_div(p.kv_seq, appetite.keys);
  Plan plan{.heads = p.batch * p.kv_heads,
            .row_tiles = ceil_div(p.group() * p.seq, appetite.rows),
            .tile = appetite.keys,
            .splits = 1,
            .chunk = 0};
  const auto split = [&](int into) {  // as few as have no more than those would have
    const int tiles_each = ceil_div(tiles, std::min(into, tiles));
    plan.chunk = tiles_each * appetite.keys;
    plan.splits = ceil_div(tiles, tiles_each);
    return plan;
  };
  if (splits > 0) return split(splits);

  // More than four waves are of no use.
  const int waves = ceil_div(4 * device.sms * appetite.blocks_per_sm, plan.heads * plan.row_tiles);
  Plan best = split(1);
  double least = predicted_bytes(p, best, appetite, device);
  for (int into = 2; into <= std::min(tiles, waves); ++into) {
    const double bytes = predicted_bytes(p, split(into), appetite, device);
    if (bytes < least) best = plan, least = bytes;
  }
  return best;
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
  if (std::int64_t{p.batch} * p.heads * p.seq > INT32_MAX)
    return "Q would have more than 2^31 - 1 rows";
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

std::string refuse_overlapped(const Problem& p, const DeviceInfo& device) {
  if (device.sm < 90) return "kernels begin before the one in front has ended from sm_90 on";
  return refuse_tensor(p, device);
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

// f(tile) with the TensorTile for the problem.
template <typename F>
auto with_tensor_tile(const Problem& p, F&& f) {
  return with_head_dim(p.head_dim, [&](auto D) {
    if (p.cache_dtype() == DType::e4m3) return f(TensorTile<__half, __nv_fp8_e4m3, D>{});
    if (p.dtype == DType::bf16) return f(TensorTile<__nv_bfloat16, __nv_bfloat16, D>{});
    return f(TensorTile<__half, __half, D>{});
  });
}

// SPLITS 0: the model's choice.
template <int SPLITS>
Plan tensor_plan(const Problem& p) {
  return with_tensor_tile(p, [&]<typename Tile>(Tile) {
    return make_plan(p, {Tile::ROWS, Tile::BLOCK_KEYS, Tile::BLOCKS_PER_SM}, device(), SPLITS);
  });
}
template <int SPLITS>
std::size_t workspace_tensor(const Problem& p) {
  return Job::workspace_bytes(p, tensor_plan<SPLITS>(p));
}
template <int SPLITS>
std::size_t zeroed_tensor(const Problem& p) {
  return Job::ticket_bytes(tensor_plan<SPLITS>(p));
}
template <int SPLITS, bool OVERLAPS>
void launch_tensor_cores(const Problem& p, const Arguments& a, Stream stream) {
  with_tensor_tile(p, [&]<typename Tile>(Tile) {
    launch_tensor<Tile>(p, a, tensor_plan<SPLITS>(p), OVERLAPS, stream);
  });
}

Cost cost(const Problem& p) { return {.dram_bytes = minimum_work(p).bytes}; }

template <int SPLITS = 0>
constexpr Variant tensor_cores(const char* name, const char* idea) {
  return {.name = name,
          .idea = idea,
          .prior = "shared_kv",
          .operation = Operation::attention,
          .features = {.kv_dtype = true, .kv_len = true, .pages = true},
          .refuse = refuse_tensor,
          .workspace = workspace_tensor<SPLITS>,
          .zeroed = zeroed_tensor<SPLITS>,
          .cost = cost,
          .launch = launch_tensor_cores<SPLITS, false>};
}

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
    tensor_cores("tensor_cores", "eight rows at a time by mma.sync, from memory into registers"),
    {.name = "overlapped",
     .idea = "begins while the kernel in front of it ends, and has its first keys brought into L2",
     .prior = "tensor_cores",
     .operation = Operation::attention,
     .features = {.kv_dtype = true, .kv_len = true, .pages = true},
     .refuse = refuse_overlapped,
     .workspace = workspace_tensor<0>,
     .zeroed = zeroed_tensor<0>,
     .cost = cost,
     .launch = launch_tensor_cores<0, true>},
};

// --sweep splits
constexpr Variant kSplits[] = {
    tensor_cores<1>("1_chunk", "one block a head"),
    tensor_cores<2>("2_chunks", ""),
    tensor_cores<4>("4_chunks", ""),
    tensor_cores<6>("6_chunks", ""),
    tensor_cores<8>("8_chunks", ""),
    tensor_cores<12>("12_chunks", ""),
    tensor_cores<16>("16_chunks", ""),
    tensor_cores<24>("24_chunks", ""),
    tensor_cores<32>("32_chunks", ""),
    tensor_cores<64>("64_chunks", ""),
    tensor_cores("chosen", "as many as the model says"),
};

// The last that can. Of those before sm_90: where a row has its keys for itself, memory is all
// there is to wait for, and the CUDA cores ask for it in whole lines. With rows that share, or 8
// bits, there are too many instructions for them.
int best(const Problem& p, const DeviceInfo& device) {
  if (refusal(kVariants[4], p, device).empty()) return 4;
  const bool alone = p.group() * p.seq == 1 && p.cache_dtype() == p.dtype;
  if (!alone && refusal(kVariants[3], p, device).empty()) return 3;
  return alone ? 1 : 2;
}

}  // namespace

const Stage stage_07_flash_decoding{.name = "07_flash_decoding",
                                    .title = "Decoding: one query against a long cache",
                                    .operation = Operation::attention,
                                    .prior = &stage_05_epilogue_norm_v2,
                                    .variants = kVariants,
                                    .best = best,
                                    .yardsticks = {},
                                    .default_seq = 1,
                                    .splits = kSplits};

}  // namespace al
