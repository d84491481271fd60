// O of 8 bits, as cuDNN leaves it, into what the check reads.
#pragma once

#include "common/stage.hpp"

namespace al {

// o8 [B, Hq, Nq, D] in e4m3, times the factor of its head's V [Hkv] → out in fp16.
void widen_heads(const Problem& problem, const void* o8, const float* v_scale, void* out,
                 Stream stream);

}  // namespace al
