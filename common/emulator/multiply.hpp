#pragma once

namespace al::emulator {

// d [m, n] += a [m, k] · b [k, n]; k is a multiple of 4.
void multiply_add(float* __restrict d, const float* __restrict a, const float* __restrict b, int m,
                  int n, int k);

}  // namespace al::emulator
