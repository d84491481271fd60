// Which accesses of a block are ordered before which: vector clocks.
//
// Time counts the block's synchronisations. Each thread keeps, for every other "agent", the time
// before which all that the agent did is ordered before what the thread does now. An agent is a
// thread, or hardware that works beside the threads: the copies that one mbarrier counts, a
// warpgroup's wgmma, a thread's bulk stores.
//
// A release (an arrival at a barrier) publishes what a thread knows; an acquire (the end of a wait)
// learns it. __syncthreads orders everything by threads at once and costs nothing a thread.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace al::emulator {

using Time = std::uint32_t;
using Clock = std::vector<Time>;  // by agent; grows when needed

constexpr int kMaxThreads = 1024;
constexpr int kHardwareAgents = 128;
constexpr int kAgents = kMaxThreads + kHardwareAgents;  // threads first

class Clocks {
 public:
  static constexpr Time kTimeLimit = 1u << 19;  // what a stamp has room for

  Time now = 1;
  Time barrier = 1;  // what threads did before this time is before the last __syncthreads

  void begin_block(int threads);
  // The time that an access by this thread is stamped with: its last release.
  Time of(int thread) const { return std::max(barrier, released_[thread]); }
  // Is what the agent did at this time ordered before what the thread does now?
  bool knows(int thread, int agent, Time time) const;
  // The same for several lanes of the thread's own warp, where nobody remembers which.
  bool knows_warp(int thread, Time time) const { return time < synced_[thread]; }

  void pass_barrier();
  void pass_warp_sync(int warp, unsigned mask);
  void release(int thread, Clock& to);
  void acquire(int thread, const Clock& from);
  // The hardware did something now: its time.
  Time tick() { return ++now; }
  // What the agent did at this time and before is known to those who acquire `to`.
  void publish(int agent, Time time, Clock& to);
  // The thread has waited for what the agent did at this time and before.
  void learn(int thread, int agent, Time time);

  // Orders beyond __syncthreads and __syncwarp are in use: from now on every thread must know of
  // every agent, not only of the lanes of its warp, and readers are told apart exactly.
  void be_exact();
  bool exact() const { return exact_; }
  bool exhausted() const { return now + 2 * kMaxThreads >= kTimeLimit; }

  // fence.proxy.async: what this thread has written, or knows of, is visible to the hardware.
  void fence_proxy(int thread);
  bool fenced(int agent, Time time) const { return time < proxy_[agent]; }

 private:
  Time* row(int thread) { return known_.data() + thread * width_; }
  const Time* row(int thread) const { return known_.data() + thread * width_; }
  // In a row. Hardware that is not there (because nobody was exact) was never used.
  int column(int agent) const {
    return !exact_ ? agent % 32 : agent < kMaxThreads ? agent : agent - kMaxThreads + threads_;
  }

  int threads_ = 0;
  int width_ = 32;
  bool exact_ = false, synced_any_ = false;
  std::array<Time, kMaxThreads> released_{}, synced_{};  // last release; last __syncwarp
  std::array<Time, kMaxThreads> proxy_{};                // by writer: see fence_proxy
  std::vector<Time> known_;                              // [thread][column]
  std::vector<Time> barrier_knows_;  // [column of hardware]: what the last __syncthreads ordered
};

}  // namespace al::emulator
