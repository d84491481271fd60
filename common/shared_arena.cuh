// Shared memory, carved by name at the top of a kernel:
//
//   SharedArena shared;
//   auto& Q_smem = shared.take<float[BLOCK_M][D]>("Q_smem");
//   auto& K_smem = shared.take<float[BLOCK_N][D]>("K_smem");
//
// Every thread of the block makes the same calls in the same order. The launch asks for
// shared_bytes<float[BLOCK_M][D], float[BLOCK_N][D]>(). On a GPU each call is an address computed
// at compile time. Under the emulator each array stands between red zones, starts as
// poison, and is known by its name in reports.
#pragma once

#include <cstddef>

namespace al {

constexpr std::size_t kSharedAlignment =
    128;  // TMA and swizzled layouts need 128; it costs nothing

__host__ __device__ constexpr std::size_t shared_round_up(std::size_t bytes) {
  return (bytes + kSharedAlignment - 1) / kSharedAlignment * kSharedAlignment;
}

// Bytes of dynamic shared memory that arrays of these types take, in this order.
template <typename... Arrays>
constexpr std::size_t shared_bytes() {
  return (std::size_t{0} + ... + shared_round_up(sizeof(Arrays)));
}

class SharedArena {
 public:
  template <typename Array>
  __device__ Array& take([[maybe_unused]] const char* name) {
#ifdef AL_EMULATOR
    return *static_cast<Array*>(emulator::take_shared(name, taken_++, sizeof(Array)));
#else
    extern __shared__ __align__(kSharedAlignment) unsigned char shared_arena[];
    unsigned char* array = shared_arena + taken_;
    taken_ += shared_round_up(sizeof(Array));
    return *reinterpret_cast<Array*>(array);
#endif
  }

 private:
  std::size_t taken_ = 0;  // bytes so far; under the emulator, arrays so far
};

}  // namespace al
