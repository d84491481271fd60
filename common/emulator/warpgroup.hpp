// What the emulator keeps of a warpgroup's wgmma.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <vector>

#include "common/emulator/clocks.hpp"
#include "common/emulator/cuda.hpp"

namespace al::emulator {

constexpr int kGroupThreads = 128;

// One wgmma, as all threads of the warpgroup must ask for it.
struct WgmmaCall {
  int n = 0;
  bool a_in_registers = false, accumulate = false, a_mn_major = false, b_mn_major = false;
  std::uint64_t a = 0, b = 0;  // descriptors
  int element = 0;             // bytes
  // Decodes `count` elements of a, or of b.
  void (*decode_a)(const void* from, std::size_t count, float* to) = nullptr;
  void (*decode_b)(const void* from, std::size_t count, float* to) = nullptr;
  Where where;
  std::size_t pc = 0;

  int k() const { return 32 / element; }
  bool operator==(const WgmmaCall& o) const {
    return n == o.n && a_in_registers == o.a_in_registers && accumulate == o.accumulate &&
           a == o.a && b == o.b && decode_a == o.decode_a && decode_b == o.decode_b;
  }
};

// Accumulators on their way: from the first wgmma on them to the wait.
struct Accumulators {
  std::array<float*, kGroupThreads> d{};  // by thread; nullptr: it has its part back
  int n = 0;
  std::size_t last = 0;       // number of the last wgmma on them
  std::vector<float> values;  // [64][n]
};

struct Warpgroup {
  // The call that its threads are coming to.
  WgmmaCall call;
  int arrived = 0, first_thread = 0;
  std::uint32_t generation = 0;
  std::array<float*, kGroupThreads> d{};
  std::array<std::array<std::uint32_t, 4>, kGroupThreads> a{};

  std::array<bool, kGroupThreads> fenced{};
  std::array<std::vector<std::size_t>, kGroupThreads> groups;  // wgmmas before each commit
  std::size_t started = 0, performed = 0;
  std::vector<Time> times;  // of each wgmma
  std::list<Accumulators> accumulators;
  int agent = -1;
};

}  // namespace al::emulator
