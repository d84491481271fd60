#include "common/stage.hpp"

#include <fmt/format.h>

#include "common/error.hpp"

namespace al {

std::string refusal(const Variant& variant, const Problem& p, const DeviceInfo& device) {
  const Features& takes = variant.features;
  if (is_fp8(p.dtype) && !takes.fp8) {
    return fmt::format("it does not take 8-bit inputs (--dtype {})", to_string(p.dtype));
  }
  if (p.cache_dtype() != p.dtype && !takes.kv_dtype) {
    return fmt::format("it takes K and V in Q's dtype only (--kv-dtype {})",
                       to_string(p.cache_dtype()));
  }
  if (!p.kv_len.empty() && !takes.kv_len) return "it takes sequences of one length only (--kv-len)";
  if (p.page_size > 0 && !takes.pages) return "it does not take K and V in pages (--page-size)";
  return variant.refuse(p, device);
}

const Variant& find_variant(const Stage& stage, const std::string& name) {
  std::string known;
  for (const Variant& variant : stage.variants) {
    if (name == variant.name) return variant;
    if (!known.empty()) known += ", ";
    known += variant.name;
  }
  throw usage_error(fmt::format("{} has no variant '{}': it has {}.", stage.name, name, known));
}

}  // namespace al
