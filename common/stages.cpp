#include "common/stages.hpp"

#include "01_naive_qk/stage.hpp"

namespace al {

std::span<const Stage* const> all_stages() {
  static constexpr const Stage* stages[] = {&stage_01_naive_qk};
  return stages;
}

}  // namespace al
