// One operating-system thread's part of a launch: it runs blocks, one after another, each to its
// end. A block is up to 1024 fibers and the shared memory they have in common.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/emulator/access_log.hpp"
#include "common/emulator/cp_async_queue.hpp"
#include "common/emulator/cuda.hpp"
#include "common/emulator/fiber.hpp"
#include "common/emulator/global_memory.hpp"
#include "common/emulator/shared_memory.hpp"

namespace al::emulator {

enum class State : std::uint8_t { ready, at_barrier, at_warp_call, exited };
enum class WarpCall : std::uint8_t { none, sync, ballot, from_lane, up, down, exclusive_or };
const char* to_string(WarpCall call);

// A CUDA thread. What it waits for is filled in when it stops, and read by those it waits for.
struct Thread {
  Fiber fiber;
  uint3 index;
  State state;
  Where where;              // the call it waits in
  WarpCall call;            // at_warp_call: which one, and its arguments
  unsigned mask;
  int argument, width;
  std::uint64_t value;      // what it gives; when it continues, what it got
  bool predicate;           // at_barrier
  CopyQueue copies;         // cp.async not yet waited for
};

struct Worker {
  explicit Worker(std::uint64_t seed) : random(seed) {}

  // Runs block number `linear` to its end; false: it did something wrong, see `report`.
  bool run_block(const Grid& grid, std::uint64_t linear, std::uint32_t serial, bool checked);

  // On a fiber: ends the block with this report.
  [[noreturn]] void fail(std::string why);

  Thread& thread(int i) { return *threads[i]; }
  int lanes(int warp) const { return std::min(32, thread_count - 32 * warp); }

  // The block being run.
  const Grid* grid = nullptr;
  uint3 block_index{};
  bool checked = false;  // are loads and stores watched?
  int thread_count = 0;
  int current = 0;  // index of the running thread
  std::array<unsigned, 32> ready{};  // by warp: lanes that can run
  std::vector<std::unique_ptr<Thread>> threads;
  SharedMemory shared;
  BlockOrder order;
  AccessLog log;

  Votes votes{};  // of the last barrier
  Counts counts;
  std::string report;

 private:
  bool run_warp(int warp);
  bool resolve_warp_calls(int warp);
  bool complete(int warp, unsigned mask);
  bool release_barrier();
  bool stuck(int warp);
  bool failed(std::string why);
  std::uint32_t draw();

  std::uint64_t random;
};

// The worker whose fiber is running on this operating-system thread; null in host code.
extern constinit thread_local Worker* running;

}  // namespace al::emulator
