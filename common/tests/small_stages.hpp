// Two stages of the simplest kernels there are, that compute every operation; and one that is
// wrong.
#pragma once

#include "common/stage.hpp"

namespace al {

struct SmallStages {
  SmallStages();
  SmallStages(const SmallStages&) = delete;
  SmallStages& operator=(const SmallStages&) = delete;

  Stage first;   // "rows" (scores)
  Stage second;  // "softmax", "pv", "probabilities" (after first's), "attention"
  Stage wrong;   // "pv" that forgets the mask
};

}  // namespace al
