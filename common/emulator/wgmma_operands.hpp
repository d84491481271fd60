// Where the elements of a wgmma's operands lie: see wgmma_descriptor() in common/ptx/wgmma.cuh.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/emulator/tensor_box.hpp"

namespace al::emulator {

// f(offset, mn, k) for each 16 bytes of an operand of `rows` rows: their place in shared memory,
// and the first element's place in the matrix. K-major: the others follow in k; MN-major: in mn.
template <typename F>
void each_16_bytes(std::uint64_t descriptor, int rows, int element, bool mn_major, F f) {
  const auto field = [&](int bit) {
    return static_cast<std::size_t>(descriptor >> bit & 0x3fff) << 4;
  };
  const std::size_t start = field(0), leading = field(16), stride = field(32);
  const int bits = static_cast<int>((4 - (descriptor >> 62)) % 4);  // swizzled: see Swizzle
  const std::size_t span = std::size_t{16} << bits;                 // 16 without swizzle
  const int T = 16 / element;                                       // elements in 16 bytes
  if (!mn_major) {
    for (int mn = 0; mn < rows; ++mn) {
      const std::size_t row = start + mn / 8 * stride + mn % 8 * span;
      f(swizzled(row, bits), mn, 0);
      f(swizzled(row + (bits == 0 ? leading : 16), bits), mn, T);
    }
    return;
  }
  const int parts = static_cast<int>(span / 16);  // that lie side by side
  for (int k = 0; k < 2 * T; ++k) {
    for (int i = 0; i * T < rows; ++i) {
      const std::size_t at = bits == 0 ? start + i * stride + k % 8 * 16 + k / 8 * leading
                                       : start + i % parts * std::size_t{16} + i / parts * leading +
                                             k % 8 * span + k / 8 * stride;
      f(swizzled(at, bits), i * T, k);
    }
  }
}

}  // namespace al::emulator
