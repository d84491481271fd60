// Shared memory, carved by name at the top of a kernel:
//
//   SharedArena shared;
//   auto& Q_smem = shared.take<float[BLOCK_M][D]>("Q_smem");
//   auto& K_smem = shared.take<float[BLOCK_N][D]>("K_smem");
//
// Every thread of the block makes the same calls in the same order. The launch asks for
// shared_bytes<float[BLOCK_M][D], float[BLOCK_N][D]>(). On a GPU each call is an address computed
// at compile time. Under the emulator each array stands between red zones, starts as
// poison, and is known by its name in reports. Tiles that TMA or wgmma swizzle by their address
// say so in their type: struct alignas(1024) Tile { __half rows[64][64]; };
#pragma once

#include <cstddef>

namespace al {

constexpr std::size_t kSharedAlignment = 128;  // of every array: TMA needs it; it costs nothing
constexpr std::size_t kSharedArenaAlignment = 1024;  // the most that an array can ask for

__host__ __device__ constexpr std::size_t shared_round_up(
    std::size_t bytes, std::size_t alignment = kSharedAlignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

template <typename Array>
__host__ __device__ constexpr std::size_t shared_alignment() {
  static_assert(alignof(Array) <= kSharedArenaAlignment);
  return alignof(Array) > kSharedAlignment ? alignof(Array) : kSharedAlignment;
}

// Bytes of dynamic shared memory that arrays of these types take, in this order.
template <typename... Arrays>
constexpr std::size_t shared_bytes() {
  std::size_t bytes = 0;
  ((bytes = shared_round_up(bytes, shared_alignment<Arrays>()) + shared_round_up(sizeof(Arrays))),
   ...);
  return bytes;
}

class SharedArena {
 public:
  template <typename Array>
  __device__ Array& take([[maybe_unused]] const char* name) {
#ifdef AL_EMULATOR
    return *static_cast<Array*>(
        emulator::take_shared(name, taken_++, sizeof(Array), shared_alignment<Array>()));
#else
    extern __shared__ __align__(kSharedArenaAlignment) unsigned char shared_arena[];
    taken_ = shared_round_up(taken_, shared_alignment<Array>());
    unsigned char* array = shared_arena + taken_;
    taken_ += shared_round_up(sizeof(Array));
    return *reinterpret_cast<Array*>(array);
#endif
  }

 private:
  std::size_t taken_ = 0;  // bytes so far; under the emulator, arrays so far
};

}  // namespace al
