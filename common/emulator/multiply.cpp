// The arithmetic of a wgmma: 64 · N · K multiplications, the emulator's hottest loop.
#include "common/emulator/multiply.hpp"

namespace al::emulator {

// One more copy of the function for machines with wider registers; the same operations in the same
// order, so the same bits.
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__)
[[gnu::target_clones("avx2", "default")]]
#endif
void multiply_add(float* __restrict d, const float* __restrict a, const float* __restrict b, int m,
                  int n, int k) {
  for (int row = 0; row < m; ++row) {
    float* __restrict sums = d + static_cast<long>(row) * n;
    for (int i = 0; i < k; i += 4) {
      const float* __restrict factors = a + static_cast<long>(row) * k + i;
      const float* __restrict b0 = b + static_cast<long>(i) * n;
      const float* __restrict b1 = b0 + n, * __restrict b2 = b1 + n, * __restrict b3 = b2 + n;
      const float a0 = factors[0], a1 = factors[1], a2 = factors[2], a3 = factors[3];
      for (int j = 0; j < n; ++j) {
        sums[j] = sums[j] + a0 * b0[j] + a1 * b1[j] + a2 * b2[j] + a3 * b3[j];
      }
    }
  }
}

}  // namespace al::emulator
