#include "common/stages.hpp"

#include "01_naive_qk/stage.hpp"
#include "02_softmax/stage.hpp"
#include "03_pv/stage.hpp"
#include "04_fused_v1/stage.hpp"
#include "05_epilogue_norm_v2/stage.hpp"
#include "06_fp8_prefetch_v3/stage.hpp"
#include "07_flash_decoding/stage.hpp"
#include "08_wmma/stage.hpp"
#include "09_cute/stage.hpp"

namespace al {

std::span<const Stage* const> all_stages() {
  static constexpr const Stage* stages[] = {
      &stage_01_naive_qk,
      &stage_02_softmax,
      &stage_03_pv,
      &stage_04_fused_v1,
      &stage_05_epilogue_norm_v2,
      &stage_06_fp8_prefetch_v3,
      &stage_07_flash_decoding,
      &stage_08_wmma,
      &stage_09_cute,
  };
  return stages;
}

}  // namespace al
