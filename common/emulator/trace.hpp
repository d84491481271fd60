// What one block of a kernel does, written down for a reader: which bytes the lanes of one warp
// load and store in each phase between two barriers, with whom they shuffle, where banks collide,
// and how much the rest of the block moves meanwhile. --trace asks for it; docs/emulator.md tells
// the format.
//
// A line of code is one step of a phase, however often a loop comes back to it: its first few times
// are kept lane by lane, the others are counted. So the size is bounded by the kernel's length.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "common/counts.hpp"
#include "common/emulator/access_log.hpp"
#include "common/emulator/cuda.hpp"

namespace al::emulator {

struct Grid;
struct SharedArray;

// --trace: this thread of this block, in the next launches. Both count from 0 through all
// dimensions; block -1: nobody asked.
struct TraceWish {
  std::int64_t block = -1;
  int thread = 0;
};
TraceWish& trace_wish();

// What has been traced since the last call: JSON, one object for each launch that has this block
// and this thread, the first kTracedLaunches of them.
constexpr std::size_t kTracedLaunches = 32;
std::vector<std::string> take_traces();

class Trace {
 public:
  static constexpr std::size_t kPhases = 64;  // kept in full; later ones are left out
  static constexpr std::size_t kTimes = 6;    // of a step kept lane by lane

  // Of this grid, this block, and the warp of this thread.
  Trace(const Grid& grid, std::uint64_t block, int thread);

  std::uint64_t block() const { return block_; }

  void begin(const Counts& counts) { before_ = counts; }

  // A thread's access to an array, at this offset in it.
  void access(Space space, Direction direction, const char* how, const std::string& array,
              std::size_t pc, int thread, std::size_t offset, unsigned bytes);
  // The hardware moves a run of bytes that a thread asked for.
  void run(Direction direction, const std::string& array, std::size_t pc, int thread,
           std::size_t offset, std::size_t bytes);
  // A warp's call is complete; `from`: the lane whose value each one got, -1 none.
  void call(const char* name, Where where, int warp, const std::array<int, 32>& from);
  // One thread waits, or asks hardware for something, and this is said of it.
  void note(const std::string& what, Where where, int thread);
  // The lanes of a warp have waited for each other: what they do next belongs together.
  void align(int warp);
  // A barrier of the whole block opens, or one thread has come past a wait: a phase has ended for
  // it. `counts`: of the block so far.
  void pass_barrier(Where where, const Counts& counts);
  void pass(const std::string& what, Where where, int thread, const Counts& counts);
  void end(const Counts& counts, const std::vector<SharedArray>& arrays);

  std::string json() const;  // after end()

 private:
  struct Time {  // once a warp comes past a step
    std::array<std::uint32_t, 32> offset{};
    std::array<int, 32> from{};
    std::uint32_t mask = 0;
  };
  struct Step {
    std::string what, array, where;
    bool shared = false;
    std::size_t pc = 0;
    unsigned bytes = 0;
    std::size_t order = 0;
    std::array<std::uint32_t, 32> times{};  // by lane
    std::vector<Time> first;
  };
  struct Moved {
    std::int64_t read = 0, written = 0;
  };
  using Key = std::tuple<std::string, std::string, std::size_t, std::string>;
  struct Phase {
    std::map<Key, Step> steps;
    // What the whole block does while the traced thread is in this phase.
    std::map<std::pair<bool, std::string>, Moved> moved;  // [is it shared, array]
    Counts counts;
    std::string ended_by;
  };

  bool mine(int thread) const { return thread / 32 == thread_ / 32; }
  int traced_lane() const { return thread_ % 32; }
  Phase* phase_of(int lane);  // null: one too many
  Step* step(const std::string& what, const std::string& array, std::size_t pc,
             const std::string& where, int lane);
  void finish_phase(const std::string& ended_by, const Counts& counts);

  std::string kernel_;
  dim3 grid_, size_;
  std::uint64_t block_;
  int thread_;
  std::vector<std::tuple<std::string, std::size_t, std::size_t>> shared_;  // name, offset, bytes
  std::vector<Phase> phases_;
  Counts before_;                        // the traced thread's phase
  std::array<std::size_t, 32> phase_{};  // by lane: the number of its phase,
  std::array<std::size_t, 32> clock_{};  // and how many steps it has made in it
};

}  // namespace al::emulator
