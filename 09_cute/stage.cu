// The record of chapter 09: the kernel for sm_80 and newer, and that for sm_90a with its steps.
#include "09_cute/stage.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string_view>
#include <utility>

#include "08_wmma/stage.hpp"
#include "09_cute/flash_sm80.hpp"
#include "09_cute/flash_sm90.hpp"

namespace al {
namespace {

using namespace cute_attention;

std::string refuse_shape(const Problem& p) {
  if (p.operation != Operation::attention) return "it computes the whole of attention only";
  if (p.dtype != DType::fp16 && p.dtype != DType::bf16)
    return std::string("it takes fp16 and bf16; ") + to_string(p.dtype) +
           " has no tensor core instruction of this precision";
  if (p.head_dim != 32 && p.head_dim != 64 && p.head_dim != 128 && p.head_dim != 256)
    return "it is compiled for head dimensions 32, 64, 128 and 256";
  if (std::int64_t{std::max(p.seq, p.kv_seq)} * p.head_dim > INT32_MAX)
    return "one head's Q or K would have more than 2^31 - 1 elements";
  if (std::int64_t{p.batch} * p.heads * (p.seq / 64 + 1) > INT32_MAX)
    return "the grid would have more than 2^31 - 1 blocks";
  return "";
}

std::string refuse_sm80(const Problem& p, const DeviceInfo& device) {
  if (device.sm < 80)
    return "cp.async and this mma.sync need sm_80; this device is sm_" + std::to_string(device.sm) +
           ": stages 01 to 08 run here";
  if (p.head_dim == 256 && device.shared_per_block < 128 * 1024)
    return "a block of head dimension 256 needs 128 KiB of shared memory, and there are " +
           std::to_string(device.shared_per_block / 1024);
  return refuse_shape(p);
}

// Every product is made for whole tiles; the tiles above the diagonal are left out. One exponential
// a score.
Cost cost(const Problem& p) {
  const Work work = minimum_work(p);
  return {.tensor_flops = work.flops,
          .exponentials = work.flops / (4.0 * p.head_dim),
          .dram_bytes = work.bytes};
}

// The same, through mma.sync.
Cost cost_sm80(const Problem& p) {
  Cost of_mma_sync = cost(p);
  of_mma_sync.mma_flops = std::exchange(of_mma_sync.tensor_flops, 0);
  return of_mma_sync;
}

void launch_sm80(const Problem& p, const Arguments& a, Stream stream) {
  switch (p.head_dim) {
    case 32:
      return launch_flash_sm80<32>(p, a, stream);
    case 64:
      return launch_flash_sm80<64>(p, a, stream);
    case 128:
      return launch_flash_sm80<128>(p, a, stream);
    case 256:
      return launch_flash_sm80<256>(p, a, stream);
  }
}

std::string refuse_sm90(const Problem& p, const DeviceInfo& device) {
  if (device.sm != 90)
    return "WGMMA exists on sm_90a (Hopper) alone; this device is sm_" + std::to_string(device.sm) +
           ", where flash_sm80 runs";
  if (p.head_dim == 32) return "it is compiled for head dimensions 64, 128 and 256";
  return refuse_shape(p);
}

std::string refuse_sm90_step(const Problem& p, const DeviceInfo& device) {
  if (const std::string why = refuse_sm90(p, device); !why.empty()) return why;
  if (p.dtype != DType::fp16 || !p.causal || p.head_dim == 256)
    return "the steps on the way to flash_sm90 are compiled for fp16, causal, head dimensions 64 "
           "and 128";
  return "";
}

void launch_sm90_packed(int packed, const Problem& p, const Arguments& a, Stream stream) {
  switch (p.head_dim) {
    case 64:
      return launch_flash_sm90<64>(packed, p, a, stream);
    case 128:
      return launch_flash_sm90<128>(packed, p, a, stream);
    case 256:
      return launch_flash_sm90<256>(packed, p, a, stream);
  }
}

void launch_sm90(const Problem& p, const Arguments& a, Stream stream) {
  launch_sm90_packed(0, p, a, stream);
}

// All query heads that share keys in one tile.
std::string refuse_pack_gqa(const Problem& p, const DeviceInfo& device) {
  if (const std::string why = refuse_sm90(p, device); !why.empty()) return why;
  if (p.group() == 1) return "no query heads share a key/value head: there is nothing to pack";
  if (!std::has_single_bit(unsigned(p.group())) || p.group() > 64)
    return "it packs 2, 4, 8, 16, 32 or 64 query heads; here " + std::to_string(p.group()) +
           " share a key/value head";
  return "";
}

void launch_pack_gqa(const Problem& p, const Arguments& a, Stream stream) {
  launch_sm90_packed(std::countr_zero(unsigned(p.group())), p, a, stream);
}

template <int STEPS>
void launch_sm90_steps(const Problem& p, const Arguments& a, Stream stream) {
  switch (p.head_dim) {
    case 64:
      return launch_flash_sm90_steps<64>(STEPS, p, a, stream);
    case 128:
      return launch_flash_sm90_steps<128>(STEPS, p, a, stream);
  }
}

std::size_t counter_bytes(const Problem&) { return sizeof(int); }

// The sm_90a kernel with its first STEPS steps alone.
template <int STEPS>
constexpr Variant sm90_step(const char* name, const char* idea, const char* prior) {
  return {.name = name,
          .idea = idea,
          .prior = prior,
          .operation = Operation::attention,
          .refuse = refuse_sm90_step,
          .workspace = counter_bytes,
          .zeroed = counter_bytes,
          .cost = cost,
          .launch = launch_sm90_steps<STEPS>};
}

constexpr Variant kVariants[] = {
    {.name = "flash_sm80",
     .idea = "mma.sync, ldmatrix and cp.async, swizzled; what an A100 can do",
     .prior = kPriorStage,
     .operation = Operation::attention,
     .refuse = refuse_sm80,
     .workspace = nullptr,
     .cost = cost_sm80,
     .launch = launch_sm80},
    sm90_step<0>("tma_wgmma", "TMA brings the tiles, WGMMA multiplies them", "flash_sm80"),
    sm90_step<1>("specialised", "a warp of its own starts the copies", "tma_wgmma"),
    sm90_step<2>("overlap", "the next S = Q K^T runs under this tile's softmax", "specialised"),
    sm90_step<3>("ping_pong", "the warpgroups take turns at the tensor cores", "overlap"),
    sm90_step<4>("persistent", "a block takes tile after tile, the longest first", "ping_pong"),
    {.name = "flash_sm90",
     .idea = "O is rescaled only when a maximum has moved",
     .prior = "flash_sm80",
     .operation = Operation::attention,
     .refuse = refuse_sm90,
     .workspace = counter_bytes,
     .zeroed = counter_bytes,
     .cost = cost,
     .launch = launch_sm90},
    sm90_step<6>("lagging", "... only when one has moved by 2^8: faster, less exact", "flash_sm90"),
    {.name = "pack_gqa",
     .idea = "query heads that share keys fill one tile together",
     .prior = "flash_sm90",
     .operation = Operation::attention,
     .refuse = refuse_pack_gqa,
     .workspace = counter_bytes,
     .zeroed = counter_bytes,
     .cost = cost,
     .launch = launch_pack_gqa},
};

int best(const Problem& p, const DeviceInfo& device) {
  constexpr int PACK_GQA = std::size(kVariants) - 1;
  constexpr int FLASH_SM90 = PACK_GQA - 2;  // between them: lagging, which pays with accuracy
  static_assert(kVariants[PACK_GQA].name == std::string_view("pack_gqa") &&
                kVariants[FLASH_SM90].name == std::string_view("flash_sm90"));
  // Packing pays where the queries of one head do not fill a tile, and costs nothing elsewhere.
  const bool keys_are_long = long_keys(p.head_dim, p.kv_seq);
  const bool short_head = p.seq < best_tile(p.head_dim, p.causal, keys_are_long).block_m;
  if (short_head && refuse_pack_gqa(p, device).empty()) return PACK_GQA;
  return refuse_sm90(p, device).empty() ? FLASH_SM90 : 0;
}

}  // namespace

namespace cute_attention {

TileOrder sm90_order(const Problem& p, int block_m, const DeviceInfo& device) {
  TileOrder order;
  order.heads = p.batch * p.heads;
  order.tiles_m = ceil_div(p.seq, block_m);
  // Blocks that run at the same time should find K and V in L2: because those of all their heads
  // fit into (two thirds of) it, or because eight blocks read the same head's at about the same
  // time. Within these bounds the more heads the better when causal, since all long tiles of a
  // group come before its short ones; else as few heads as keep every SM busy.
  const std::int64_t kv_bytes = std::int64_t{2} * p.kv_seq * p.head_dim * bytes_of(p.dtype);
  const std::int64_t fitting = p.group() * (std::int64_t(device.l2_bytes) / 3 * 2 / kv_bytes);
  const std::int64_t at_once =
      p.causal ? std::max({fitting, std::int64_t{device.sms / 8}, std::int64_t{1}})
               : ceil_div(device.sms, order.tiles_m);
  // In groups of equal size: the last one ends the launch, and a small one would end it unevenly.
  const int groups = static_cast<int>((order.heads + at_once - 1) / at_once);
  order.at_once = ceil_div(order.heads, groups);
  return order;
}

}  // namespace cute_attention

const Stage stage_09_cute{.name = "09_cute",
                          .title = "CuTe: what Ampere can do, then what Hopper can do",
                          .operation = Operation::attention,
                          .prior = &stage_08_wmma,
                          .variants = kVariants,
                          .best = best,
                          .yardsticks = {}};

}  // namespace al
