// Named barriers, and the registers that warpgroups hand to each other.
#include "common/emulator/hopper.hpp"
#include "common/emulator/report.hpp"
#include "common/emulator/worker.hpp"

namespace al::emulator {
namespace {

struct Generation final : Awaited {
  NamedBarrier& barrier;
  int id;
  std::uint32_t mine;
  Generation(NamedBarrier& b, int number) : barrier(b), id(number), mine(b.generation) {}

  bool over() override { return barrier.generation != mine; }
  std::string text() override {
    return "at named barrier " + std::to_string(id) + ", to which " +
           std::to_string(barrier.arrived) + " of " + std::to_string(barrier.threads) +
           " threads have come";
  }
  std::string look_at() override {
    return "which threads come to this barrier, by named_barrier_sync() and "
           "named_barrier_arrive(), against the number it is called with";
  }
};

struct Registers final : Awaited {
  Worker& worker;
  int warp, wanted;
  Registers(Worker& w, int the_warp, int registers)
      : worker(w), warp(the_warp), wanted(registers) {}

  bool over() override {
    int others = 0;
    const std::vector<int>& all = worker.async.registers;
    for (std::size_t w = 0; w < all.size(); ++w) others += static_cast<int>(w) == warp ? 0 : all[w];
    return 32 * (others + wanted) <= worker.register_pool();
  }
  std::string text() override {
    return "for " + std::to_string(wanted) + " registers a thread, of which the block has " +
           std::to_string(worker.register_pool()) + " in all";
  }
  std::string look_at() override {
    return "the numbers given to setmaxnreg: the sum over all threads, with those that never gave "
           "any back, must not exceed what the block was launched with (65536 over the threads, "
           "rounded down to a multiple of 8)";
  }
};

}  // namespace

int Worker::registers_at_launch() const {
  return std::min(256, 65536 / ((thread_count + 31) / 32 * 32) / 8 * 8);
}

int Worker::register_pool() const { return (thread_count + 31) / 32 * 32 * registers_at_launch(); }

void named_barrier(int id, int threads, bool waits, Where where) {
  const Entered entered;
  Worker& w = entered.worker;
  // Made when needed: a block that fails elsewhere never comes back to free a waiting thread's
  // locals.
  const auto who = [&] {
    return "  thread:  " + w.name(w.current, true) + " at " + to_string(where) + "\n";
  };
  if (id < 1 || id > 15 || threads < 32 || threads % 32 != 0 || threads > w.thread_count) {
    w.fail("impossible named barrier",
           who() + "  barrier: " + std::to_string(id) + ", of " + std::to_string(threads) +
               " threads\n",
           "the barrier's number, 1 to 15 (0 is __syncthreads), and its threads: whole warps, no "
           "more than the block has");
    return;
  }
  NamedBarrier& b = w.async.named[id];
  if (b.arrived > 0 && b.threads != threads) {
    w.fail("threads disagree about a named barrier",
           who() + "  barrier: " + std::to_string(id) + ", of " + std::to_string(threads) +
               " threads here, of " + std::to_string(b.threads) + " where others came to it\n",
           "the number of threads at each call with this barrier's number");
    return;
  }
  Generation generation(b, id);
  b.threads = threads;
  if (w.watched) w.shared.clocks.release(w.current, b.clock);
  if (++b.arrived == threads) {
    b.arrived = 0;
    ++b.generation;
    ++w.counts.barriers;
  }
  const std::string name = "named barrier " + std::to_string(id);
  if (w.trace && !waits) w.trace->note("arrives at " + name, where, w.current);
  if (!waits) return;
  w.wait_for(generation, where);
  if (w.trace) w.trace->pass(name, where, w.current, w.counts);
  if (w.watched) w.shared.clocks.acquire(w.current, b.clock);
}

void set_max_registers(int registers, bool increase, Where where) {
  const Entered entered;
  Worker& w = entered.worker;
  const int warp = w.current / 32;
  std::vector<int>& all = w.async.registers;
  if (all.empty()) all.assign((w.thread_count + 31) / 32, w.registers_at_launch());
  const auto who = [&] {
    return "  thread:  " + w.name(w.current, true) + " at " + to_string(where) +
           "\n  numbers: it has " + std::to_string(all[warp]) + " registers and asks for " +
           std::to_string(registers) + "\n";
  };
  if (registers < 24 || registers > 256 || registers % 8 != 0) {
    w.fail("impossible setmaxnreg", who(), "the number: a multiple of 8 from 24 to 256");
    return;
  }
  if (increase ? registers < all[warp] : registers > all[warp]) {
    w.fail("setmaxnreg in the wrong direction", who(),
           "setmaxnreg_inc and setmaxnreg_dec, and what the block was launched with");
    return;
  }
  Registers enough(w, warp, registers);
  while (!enough.over()) w.wait_for(enough, where);  // another warp may have been quicker
  all[warp] = registers;
}

}  // namespace al::emulator
