#include "common/stage.hpp"

#include <fmt/format.h>

#include "common/error.hpp"

namespace al {

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
