// What goes on beside the threads of a block: waiting for other things than a __syncthreads, and
// work that the hardware does later (copies, stores, wgmma).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/emulator/clocks.hpp"
#include "common/emulator/cuda.hpp"
#include "common/emulator/warpgroup.hpp"

namespace al::emulator {

class Worker;

// What a thread waits for. Lives on its stack while it does; the scheduler asks whether it is over.
class Awaited {
 public:
  virtual bool over() = 0;
  virtual std::string text() = 0;  // for a deadlock's report: "for phase 0 of full, element 1"
  virtual std::string look_at() = 0;
  bool may_give_up = false;  // the wait may end without that, when nothing else can go on

 protected:
  ~Awaited() = default;
};

// Work of the hardware. The scheduler does it at a moment drawn from the seed, in any order; work
// of one queue (>= 0) in its own.
class Deferred {
 public:
  explicit Deferred(int work_queue = -1) : queue(work_queue) {}
  virtual ~Deferred() = default;
  virtual void perform(Worker& worker) = 0;
  virtual std::string text() = 0;  // "a tensor copy to K_smem, started at ..."
  const int queue;
};

struct Mbarrier {
  std::uint32_t arrivals = 0;  // that complete a phase
  std::uint32_t missing = 0;   // of them, in this phase
  std::int64_t bytes = 0;      // announced in this phase and not come yet
  std::uint32_t phase = 0;     // counts the phases completed
  bool fenced = false;         // known to the hardware that copies
  int initialised_by = 0;
  int agent = 0;             // the copies it counts, as the clocks know them
  Clock arrived, completed;  // what is known to those who wait for this phase, for the last one
};

struct NamedBarrier {
  int threads = 0, arrived = 0;  // 0: nobody has come
  std::uint32_t generation = 0;
  Clock clock;
};

// The bulk stores of a thread: groups, oldest first, each of numbers in AsyncState::stores.
struct StoreGroups {
  std::vector<std::vector<std::size_t>> committed;
  std::vector<std::size_t> open;
  int agent = -1;
};
struct Store {
  bool done = false;  // it has read shared memory and written global memory
  Time time = 0;
};

// What a block has of all this.
struct AsyncState {
  std::map<std::size_t, Mbarrier> mbarriers;  // by offset in shared memory
  NamedBarrier named[16];
  std::vector<std::unique_ptr<Deferred>> deferred;
  std::map<int, StoreGroups> store_groups;  // by thread
  std::vector<Store> stores;
  std::vector<std::string> agents;    // names of the hardware's agents
  std::vector<Warpgroup> warpgroups;  // empty until one uses wgmma
  std::vector<int> registers;         // by warp, a thread's: see setmaxnreg

  void begin_block() { *this = {}; }
};

}  // namespace al::emulator
