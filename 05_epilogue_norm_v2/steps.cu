#include "05_epilogue_norm_v2/steps.hpp"

namespace al::fused2 {

std::string refuse_step(const Problem& p, const DeviceInfo& device) {
  if (p.operation != Operation::attention) return "it computes the whole of attention only";
  if (p.dtype != DType::fp16 || (p.head_dim != 64 && p.head_dim != 128))
    return "the single changes are compiled for fp16 and head dims 64 and 128 only";
  const bool large = p.head_dim == 64 ? choose_large<LargeTile<__half, 64>>(p, device)
                                      : choose_large<LargeTile<__half, 128>>(p, device);
  if (!large)
    return "the single changes are compiled for large tiles, and this problem takes small ones";
  if (std::int64_t{p.batch} * p.heads * ceil_div(p.seq, 128) > INT32_MAX)
    return "the grid would have more than 2^31 - 1 blocks";
  if (std::int64_t{std::max(p.seq, p.kv_seq)} * p.head_dim > INT32_MAX)
    return "one head's Q, K or V would have more than 2^31 - 1 elements";
  return "";
}

template <unsigned CHANGES>
void launch_step(const Problem& p, const Arguments& a, Stream stream) {
  p.head_dim == 64 ? launch_tile<LargeTile<__half, 64, CHANGES>>(p, a, stream)
                   : launch_tile<LargeTile<__half, 128, CHANGES>>(p, a, stream);
}

template void launch_step<kRung0>(const Problem&, const Arguments&, Stream);
template void launch_step<kRung1>(const Problem&, const Arguments&, Stream);
template void launch_step<kRung2>(const Problem&, const Arguments&, Stream);
template void launch_step<kRung3>(const Problem&, const Arguments&, Stream);
template void launch_step<kRung4>(const Problem&, const Arguments&, Stream);
template void launch_step<kRung5>(const Problem&, const Arguments&, Stream);
template void launch_step<kRung6>(const Problem&, const Arguments&, Stream);
template void launch_step<kRung7>(const Problem&, const Arguments&, Stream);
template void launch_step<kRung8>(const Problem&, const Arguments&, Stream);
template void launch_step<kAllChanges & ~kEpilogueNorm>(const Problem&, const Arguments&, Stream);

}  // namespace al::fused2
