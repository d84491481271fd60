// The record of chapter 09: the kernel for sm_80 and newer.
#include "09_cute/stage.hpp"

#include <algorithm>
#include <cstdint>

#include "05_epilogue_norm_v2/stage.hpp"
#include "09_cute/flash_sm80.hpp"

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
  return refuse_shape(p);
}

// Every product is made for whole tiles; the tiles above the diagonal are left out.
Cost cost(const Problem& p) {
  return {.tensor_flops = minimum_work(p).flops, .dram_bytes = minimum_work(p).bytes};
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

constexpr Variant kVariants[] = {
    {.name = "flash_sm80",
     .idea = "mma.sync, ldmatrix and cp.async, swizzled; what an A100 can do",
     .prior = kPriorStage,
     .operation = Operation::attention,
     .refuse = refuse_sm80,
     .workspace = nullptr,
     .cost = cost,
     .launch = launch_sm80},
};

int best(const Problem&, const DeviceInfo&) { return 0; }

}  // namespace

const Stage stage_09_cute{.name = "09_cute",
                          .title = "CuTe: what Ampere can do, then what Hopper can do",
                          .operation = Operation::attention,
                          .prior = &stage_05_epilogue_norm_v2,
                          .variants = kVariants,
                          .best = best,
                          .yardsticks = {}};

}  // namespace al
