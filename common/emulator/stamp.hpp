// 32 bits that say who touched a byte, and when.
#pragma once

#include <cstdint>

#include "common/emulator/clocks.hpp"

namespace al::emulator {

// clang-format off
//   0 time:19 who:11 atomic:1      a thread; or, where nobody remembers which, several
//   1 00 .... agent:7 time:19      hardware
//   1 01 .... agent:11             on its way: started by this thread, or this hardware
//   1 10 set:29                    readers that nothing orders: a number in ReadSets
//   1 11 1...1                     a red zone
// clang-format on
struct Stamp {
  std::uint32_t bits = 0;  // 0: never

  // `who` is a thread, or:
  static constexpr std::uint32_t kLanes = 1024;       // + warp: several lanes of it
  static constexpr std::uint32_t kWarps = 1024 + 32;  // threads of several warps

  static constexpr Stamp by(std::uint32_t who, Time time, bool atomic = false) {
    return {time << 12 | who << 1 | static_cast<std::uint32_t>(atomic)};
  }
  static constexpr Stamp by_hardware(int agent, Time time) {
    return {kSpecial | static_cast<std::uint32_t>(agent - kMaxThreads) << 19 | time};
  }
  static constexpr Stamp in_flight(int agent) {
    return {kSpecial | 1u << 29 | static_cast<std::uint32_t>(agent)};
  }
  static constexpr Stamp set(std::uint32_t number) { return {kSpecial | 2u << 29 | number}; }
  static constexpr Stamp red_zone() { return {0xffffffff}; }

  constexpr bool never() const { return bits == 0; }
  constexpr bool is_red_zone() const { return bits == 0xffffffff; }
  constexpr bool is_thread() const { return !(bits & kSpecial); }
  constexpr bool is_hardware() const { return bits >> 29 == 4; }
  constexpr bool is_in_flight() const { return bits >> 29 == 5; }
  constexpr bool is_set() const { return bits >> 29 == 6; }

  constexpr Time time() const { return is_thread() ? bits >> 12 : bits & 0x7ffff; }
  constexpr std::uint32_t who() const { return bits >> 1 & 0x7ff; }
  constexpr bool atomic() const { return is_thread() && (bits & 1); }
  constexpr std::uint32_t number() const { return bits & 0x1fffffff; }  // of a set
  // Thread or hardware; -1: several.
  constexpr int agent() const {
    if (is_hardware()) return kMaxThreads + static_cast<int>(bits >> 19 & 0x3ff);
    if (is_in_flight()) return static_cast<int>(bits & 0x7ff);
    return is_thread() && who() < kMaxThreads ? static_cast<int>(who()) : -1;
  }

  friend constexpr bool operator==(Stamp, Stamp) = default;

 private:
  static constexpr std::uint32_t kSpecial = 1u << 31;
};

}  // namespace al::emulator
