// A tensor map as this emulator writes it into the driver's 128 opaque bytes, and the boxes of it.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "common/tensor_map.hpp"

namespace al::emulator {

// 16-byte parts change places: `bits` of the address from bit 4 on are XORed with those from bit 7
// on. `offset` counts from a multiple of 1024.
constexpr std::size_t swizzled(std::size_t offset, int bits) {
  return offset ^ (offset >> 7 & ((std::size_t{1} << bits) - 1)) << 4;
}

struct TensorBox {
  std::uint64_t magic;
  std::uint64_t address;
  std::array<std::uint64_t, 4> strides;  // bytes
  std::array<std::uint32_t, 5> last;     // sizes less 1, innermost first
  std::array<std::uint16_t, 5> box;      // elements
  std::uint8_t rank, element, swizzle;   // element in bytes; swizzle in bits

  std::size_t row_bytes() const { return std::size_t{box[0]} * element; }
  std::size_t rows() const {
    std::size_t n = 1;
    for (int d = 1; d < rank; ++d) n *= box[d];
    return n;
  }
  std::size_t bytes() const { return row_bytes() * rows(); }

  // f(row, address, skip, count) for each row of the box at x: its bytes [skip, skip + count) lie
  // in the tensor, from `address` on; count is 0 where the row lies outside.
  template <typename F>
  void each_row(const int* x, F f) const {
    const std::int64_t n = std::int64_t{last[0]} + 1;
    const std::int64_t begin = std::max<std::int64_t>(0, -std::int64_t{x[0]});
    const std::int64_t end = std::min<std::int64_t>(box[0], n - x[0]);
    for (std::size_t row = 0; row < rows(); ++row) {
      std::size_t rest = row;
      std::uint64_t at = address + static_cast<std::uint64_t>((x[0] + begin) * element);
      bool inside = begin < end;
      for (int d = 1; d < rank; ++d) {
        const std::int64_t i = x[d] + static_cast<std::int64_t>(rest % box[d]);
        rest /= box[d];
        inside &= i >= 0 && i <= std::int64_t{last[d]};
        at += static_cast<std::uint64_t>(i) * strides[d - 1];
      }
      f(row, inside ? at : 0, static_cast<std::size_t>(inside ? begin * element : 0),
        static_cast<std::size_t>(inside ? (end - begin) * element : 0));
    }
  }
};

std::optional<TensorBox> read_tensor_map(const TensorMap& map);  // nullopt: nobody has made it

}  // namespace al::emulator
