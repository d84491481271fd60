// The record of chapter 08: FlashAttention-2 on the tensor cores, in nine steps.
#include "08_wmma/stage.hpp"

#include <algorithm>
#include <cstdint>
#include <string>

#include "05_epilogue_norm_v2/stage.hpp"
#include "08_wmma/wmma_v1.cuh"
#include "08_wmma/wmma_v2.cuh"
#include "08_wmma/wmma_v3.cuh"
#include "08_wmma/wmma_v4.cuh"

namespace al {
namespace {

using namespace wmma;

// --- which tile ---------------------------------------------------------------------------------

// The steps before the last but one are here to be compared: fp16 and D 64 or 128, one tile each.
template <int WARPS, int BLOCK_N, int PAD>
struct V1 {
  static std::size_t shared(const Problem& p) {
    return p.head_dim == 64 ? TileV1<__half, 64, WARPS, BLOCK_N, PAD>::shared()
                            : TileV1<__half, 128, WARPS, BLOCK_N, PAD>::shared();
  }
  static void launch(const Problem& p, const Arguments& a, Stream stream) {
    p.head_dim == 64 ? launch_v1<__half, 64, WARPS, BLOCK_N, PAD>(p, a, stream)
                     : launch_v1<__half, 128, WARPS, BLOCK_N, PAD>(p, a, stream);
  }
};

template <int WARP_ROWS>
struct V2 {
  static std::size_t shared(const Problem& p) {
    return p.head_dim == 64 ? TileV2<__half, 64, 4, WARP_ROWS, 64>::shared()
                            : TileV2<__half, 128, 4, WARP_ROWS, 64>::shared();
  }
  static void launch(const Problem& p, const Arguments& a, Stream stream) {
    p.head_dim == 64 ? launch_v2<__half, 64, 4, WARP_ROWS, 64>(p, a, stream)
                     : launch_v2<__half, 128, 4, WARP_ROWS, 64>(p, a, stream);
  }
};

template <bool VECTORS>
struct V3 {
  static std::size_t shared(const Problem& p) {
    return p.head_dim == 64 ? TileV3<__half, 64, 4, 32, 64>::shared()
                            : TileV3<__half, 128, 4, 32, 64>::shared();
  }
  static void launch(const Problem& p, const Arguments& a, Stream stream) {
    p.head_dim == 64 ? launch_v3<__half, 64, 4, 32, 64, 3, VECTORS, 1>(p, a, stream)
                     : launch_v3<__half, 128, 4, 32, 64, 2, VECTORS, 1>(p, a, stream);
  }
};

// The last two take both dtypes, D 32 as well, and three tiles: 32 queries a warp; 16 where that
// would leave SMs without a block; and a small one where a block cannot have the shared memory.
// [snippet choose]
bool fills_the_device(const Problem& p, int block_m) {
  return std::int64_t{p.batch} * p.heads * ceil_div(p.seq, block_m) >= device().sms;
}

template <typename T, int D, int BLOCKS_PER_SM>
void launch_longest_first(const Problem& p, const Arguments& a, Stream stream) {
  constexpr bool VECTORS = true;
  constexpr int HEADS = kHeadsTogether;
  if (TileV3<T, D, 4, 32, 64>::shared() > device().shared_per_block) {
    launch_v3<T, D, 4, 16, 32, BLOCKS_PER_SM, VECTORS, HEADS>(p, a, stream);
  } else if (fills_the_device(p, 4 * 32)) {
    launch_v3<T, D, 4, 32, 64, BLOCKS_PER_SM, VECTORS, HEADS>(p, a, stream);
  } else {
    launch_v3<T, D, 4, 16, 64, BLOCKS_PER_SM, VECTORS, HEADS>(p, a, stream);
  }
}

template <typename T, int D, int BLOCKS_PER_SM>
void launch_asked_layout(const Problem& p, const Arguments& a, Stream stream) {
  if (TileV4<T, D, 4, 32, 64>::shared() > device().shared_per_block) {
    launch_v4<T, D, 2, 32, 32, BLOCKS_PER_SM>(p, a, stream);
  } else if (fills_the_device(p, 4 * 32)) {
    launch_v4<T, D, 4, 32, 64, BLOCKS_PER_SM>(p, a, stream);
  } else {
    launch_v4<T, D, 4, 16, 64, BLOCKS_PER_SM>(p, a, stream);
  }
}
// [/snippet]

// The least shared memory they can do with: a T4 has it.
constexpr std::size_t kSmallest = 64 * 1024;
static_assert(TileV3<__half, 128, 4, 16, 32>::shared() <= kSmallest);
static_assert(TileV4<__half, 128, 2, 32, 32>::shared() <= kSmallest);

// Calls f<T, D, BLOCKS_PER_SM>(): as many blocks on an SM as their registers allow.
template <typename F>
void for_dtype_and_dim(const Problem& p, F f) {
  const auto for_dim = [&]<typename T>() {
    switch (p.head_dim) {
      case 32:
        return f.template operator()<T, 32, 3>();
      case 64:
        return f.template operator()<T, 64, 3>();
      default:
        return f.template operator()<T, 128, 2>();
    }
  };
  p.dtype == DType::fp16 ? for_dim.template operator()<__half>()
                         : for_dim.template operator()<__nv_bfloat16>();
}

void launch_longest_first_any(const Problem& p, const Arguments& a, Stream stream) {
  for_dtype_and_dim(p, [&]<typename T, int D, int BLOCKS_PER_SM>() {
    launch_longest_first<T, D, BLOCKS_PER_SM>(p, a, stream);
  });
}

void launch_asked_layout_any(const Problem& p, const Arguments& a, Stream stream) {
  for_dtype_and_dim(p, [&]<typename T, int D, int BLOCKS_PER_SM>() {
    launch_asked_layout<T, D, BLOCKS_PER_SM>(p, a, stream);
  });
}

// --- what is refused ----------------------------------------------------------------------------

std::string refuse(const Problem& p, const DeviceInfo& device) {
  if (p.operation != Operation::attention) return "it computes the whole of attention only";
  if (p.dtype != DType::fp16 && p.dtype != DType::bf16)
    return "WMMA with fp32 sums multiplies fp16 and bf16 only";
  if (p.head_dim != 32 && p.head_dim != 64 && p.head_dim != 128)
    return "its head dims are 32, 64 and 128";
  if (device.sm < 75) return "it needs sm_75 or newer";
  if (p.dtype == DType::bf16 && device.sm < 80)
    return "the tensor cores multiply bf16 from sm_80 on";
  if (std::int64_t{p.batch} * p.heads * ceil_div(p.seq, 16) > INT32_MAX)
    return "the grid would have more than 2^31 - 1 blocks";
  if (std::int64_t{std::max(p.seq, p.kv_seq)} * p.head_dim > INT32_MAX)
    return "one head's Q, K or V would have more than 2^31 - 1 elements";
  if (device.shared_per_block < kSmallest)
    return "a block needs " + std::to_string(kSmallest) +
           " bytes of shared memory, here it can have " + std::to_string(device.shared_per_block);
  return "";
}

template <typename Step>
std::string refuse_step(const Problem& p, const DeviceInfo& device) {
  if (const std::string why = refuse(p, device); !why.empty()) return why;
  if (p.dtype != DType::fp16 || p.head_dim == 32)
    return "the steps on the way are built for fp16 and head dims 64 and 128";
  if (Step::shared(p) > device.shared_per_block)
    return "a block needs " + std::to_string(Step::shared(p)) +
           " bytes of shared memory, here it can have " + std::to_string(device.shared_per_block);
  return "";
}

std::string refuse_asked_layout(const Problem& p, const DeviceInfo& device) {
  if (const std::string why = refuse(p, device); !why.empty()) return why;
  const bool as_believed = p.dtype == DType::fp16 ? layout_is_as_believed<__half>()
                                                  : layout_is_as_believed<__nv_bfloat16>();
  if (as_believed) return "";
  std::string why = "this device lays the elements of a WMMA fragment out in another order";
  if (device.backend == "emulator") why += " (with AL_EMULATOR_GPU_FRAGMENTS=1, in a GPU's)";
  return why;
}

// --- what it costs ------------------------------------------------------------------------------

Cost cost(const Problem& p, double shared_bytes_a_score) {
  const Work work = minimum_work(p);
  const double scores = work.flops / (4.0 * p.head_dim);
  return {.mma_flops = work.flops,  // what WMMA becomes
          .exponentials = scores,
          .dram_bytes = work.bytes,
          .shared_wavefronts = scores * shared_bytes_a_score / 128};
}

// [snippet costs]
// How many passes bank conflicts make of one, where rows are not padded: counted on paper, as are
// the bytes.
struct Conflicts {
  double KV = 1, S = 1, P = 1, O = 1;
};

// What does not depend on where O is: bytes through shared memory for one score. `rows`: of a warp;
// `block_m`: of a block.
double bytes_K_V_S(double D, double rows, double block_m, Conflicts c) {
  const double bring_in = 2 * 2 * D / block_m;  // a key's K and V, written once for the block
  const double read_KV = 2 * 2 * D / rows * c.KV;
  return bring_in + read_KV + (4 + 4) * c.S;  // S: written by the fragment, read by the softmax
}

// Version 1. P is written once and read for every 16 columns of O; O is read and written by the
// fragments, and read and written again, a factor with it, to let it shrink.
double bytes_v1(double D, double block_m, double block_n, Conflicts c) {
  const double P = (2 + 2 * D / 16) * c.P, O = (2 * 4 * c.O + 2 * 4 + 4) * D / block_n;
  return bytes_K_V_S(D, 16, block_m, c) + P + O;
}

Cost cost_one_warp(const Problem& p) {
  const Conflicts rows_of_16 = {.KV = 8, .S = 2, .P = 2, .O = 4};
  return cost(p, bytes_v1(p.head_dim, 16, 16, rows_of_16));
}
Cost cost_shared_scores(const Problem& p) {
  const Conflicts rows_of_64 = {.KV = 8, .S = 4, .P = 8, .O = 4};
  return cost(p, bytes_v1(p.head_dim, 64, 64, rows_of_64));
}
Cost cost_padded(const Problem& p) { return cost(p, bytes_v1(p.head_dim, 64, 64, {})); }
// Versions 2 and 3: P is written and read once, O nowhere.
Cost cost_kept_output(const Problem& p) {
  return cost(p, bytes_K_V_S(p.head_dim, 16, 64, {}) + 2 + 2);
}
Cost cost_tall_warps(const Problem& p) {
  return cost(p, bytes_K_V_S(p.head_dim, 32, 128, {}) + 2 + 2);
}
// Version 4: S and P nowhere; Q is read for each tile of 64 keys.
Cost cost_asked_layout(const Problem& p) {
  const double D = p.head_dim, bring_in = 2 * 2 * D / 128, read_KV = 2 * 2 * D / 32;
  return cost(p, bring_in + read_KV + 2 * D / 64);
}
// [/snippet]

// --- the record ---------------------------------------------------------------------------------

constexpr Variant kVariants[] = {
    {.name = "one_warp",
     .idea = "a warp a block, 16 x 16 scores at a time",
     .prior = kPriorStage,
     .operation = Operation::attention,
     .refuse = refuse_step<V1<1, 16, 0>>,
     .workspace = nullptr,
     .cost = cost_one_warp,
     .launch = V1<1, 16, 0>::launch},
    {.name = "shared_scores",
     .idea = "four warps share tiles of 64 keys",
     .prior = "one_warp",
     .operation = Operation::attention,
     .refuse = refuse_step<V1<4, 64, 0>>,
     .workspace = nullptr,
     .cost = cost_shared_scores,
     .launch = V1<4, 64, 0>::launch},
    {.name = "padded",
     .idea = "rows padded by 8 elements: no bank conflicts",
     .prior = "shared_scores",
     .operation = Operation::attention,
     .refuse = refuse_step<V1<4, 64, 8>>,
     .workspace = nullptr,
     .cost = cost_padded,
     .launch = V1<4, 64, 8>::launch},
    {.name = "kept_output",
     .idea = "O stays in accumulators",
     .prior = "padded",
     .operation = Operation::attention,
     .refuse = refuse_step<V2<16>>,
     .workspace = nullptr,
     .cost = cost_kept_output,
     .launch = V2<16>::launch},
    {.name = "tall_warps",
     .idea = "32 queries a warp: each fragment of K and V is used twice",
     .prior = "kept_output",
     .operation = Operation::attention,
     .refuse = refuse_step<V2<32>>,
     .workspace = nullptr,
     .cost = cost_tall_warps,
     .launch = V2<32>::launch},
    {.name = "prefetch",
     .idea = "the next tile is on its way (cp.async)",
     .prior = "tall_warps",
     .operation = Operation::attention,
     .refuse = refuse_step<V3<false>>,
     .workspace = nullptr,
     .cost = cost_tall_warps,
     .launch = V3<false>::launch},
    {.name = "vectorized_output",
     .idea = "O leaves four elements at a time",
     .prior = "prefetch",
     .operation = Operation::attention,
     .refuse = refuse_step<V3<true>>,
     .workspace = nullptr,
     .cost = cost_tall_warps,
     .launch = V3<true>::launch},
    {.name = "longest_first",
     .idea = "the longest blocks of 16 heads start first",
     .prior = "vectorized_output",
     .operation = Operation::attention,
     .refuse = refuse,
     .workspace = nullptr,
     .cost = cost_tall_warps,
     .launch = launch_longest_first_any},
    {.name = "asked_layout",
     .idea = "asks where the elements lie; S and P stay in registers",
     .prior = "longest_first",
     .operation = Operation::attention,
     .refuse = refuse_asked_layout,
     .workspace = nullptr,
     .cost = cost_asked_layout,
     .launch = launch_asked_layout_any},
};

int best(const Problem& p, const DeviceInfo& device) {
  return refuse_asked_layout(p, device).empty() ? 8 : 7;
}

}  // namespace

const Stage stage_08_wmma{.name = "08_wmma",
                          .title = "FlashAttention-2 on the tensor cores, by the public API",
                          .operation = Operation::attention,
                          .prior = &stage_05_epilogue_norm_v2,
                          .variants = kVariants,
                          .best = best,
                          .yardsticks = {}};

}  // namespace al
