// One operating-system thread's part of a launch: it runs blocks, one after another, each to its
// end. A block is up to 1024 fibers and the shared memory they have in common.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/emulator/access_log.hpp"
#include "common/emulator/async.hpp"
#include "common/emulator/cuda.hpp"
#include "common/emulator/fiber.hpp"
#include "common/emulator/global_memory.hpp"
#include "common/emulator/shared_memory.hpp"
#include "common/emulator/tensor_core.hpp"
#include "common/emulator/trace.hpp"

namespace al::emulator {

// Loads and stores are seen unless ASan takes their place.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kHooks = false;
#else
constexpr bool kHooks = true;
#endif

enum class State : std::uint8_t { ready, at_barrier, at_warp_call, waiting, exited };
enum class WarpCall : std::uint8_t { sync, ballot, shuffle, collective };

// A cp.async on its way.
struct Copy {
  void* to;
  const void* from;
  unsigned bytes, source_bytes;  // the rest is filled with zeros
  std::size_t pc;
};

// A CUDA thread. What it waits for is filled in when it stops, for those it waits for to read.
struct Thread {
  Fiber fiber;
  uint3 index{};
  State state = State::exited;
  bool has_waited = true;  // for the kernels in front: see LaunchConfig::overlaps
  Where where;             // the call it waits in
  bool predicate = false;  // given to a barrier
  WarpCall call{};         // at_warp_call: which, and its arguments
  Shuffle kind{};
  unsigned mask = 0;
  int argument = 0, width = 32;
  std::uint64_t given = 0, received = 0;
  Awaited* awaited = nullptr;  // waiting: for what
  const Collective* collective = nullptr;
  void* operands = nullptr;
  std::vector<Copy> copies;              // cp.async: committed groups, oldest first, then the rest
  std::vector<std::size_t> group_sizes;  // of the committed groups
  unsigned last_wait_newer = 0;          // its last cp_async_wait, for reports
  std::size_t last_wait_pc = 0;          // 0: there was none
};

// What all blocks of a launch have in common.
struct Launch {
  const Grid& grid;
  std::uint32_t serial;  // of the launch; block i has serial + 1 + i
  std::vector<std::shared_ptr<GlobalBuffer>> buffers;
  Announcements announcements;
  Trace* trace = nullptr;  // of one of the blocks
};

class Worker {
 public:
  // Runs block number `linear` of the launch to its end; false: it did something wrong, `report`
  // says what. `seed`: of the order of its threads. `watch`: check and count loads and stores.
  bool run_block(Launch& launch, std::uint64_t linear, std::uint64_t seed, bool watch);

  // Ends the block with this report, unless it has one already; false. `details`: lines of
  // "  word: text\n". On a fiber the kernel never continues: see Entered.
  bool fail(const std::string& what, const std::string& details, const std::string& look_at);
  bool failed() const { return failed_; }
  bool fail_shared(const SharedMemory::Finding& finding, std::size_t offset, unsigned bytes,
                   std::size_t pc, const char* verb);

  Thread& thread(int i) { return *threads_[i]; }
  Thread& current_thread() { return *threads_[current]; }
  // "thread (3,0,0)", with warp and lane where they matter.
  std::string name(int i, bool with_lane = false);

  // The current thread stops in this state until the scheduler lets it go on.
  void wait(State state, Where where);
  // It stops until this is over; false: it was given up.
  bool wait_for(Awaited& awaited, Where where);
  // The hardware will do this.
  void defer(std::unique_ptr<Deferred> work) { async.deferred.push_back(std::move(work)); }
  // An agent for the clocks, by this name in reports.
  int new_agent(const std::string& called);
  std::string agent_name(int agent);  // a thread's, or the hardware's

  // mbarrier.cpp
  Mbarrier* mbarrier_at(const std::uint64_t* barrier, const char* call, std::size_t pc,
                        Where where);
  void maybe_complete(Mbarrier& mbarrier);
  std::string mbarrier_name(std::size_t offset);   // "full[1]"
  std::string mbarrier_state(std::size_t offset);  // "phase 0 of full[1]: 1 of 2 arrivals ..."
  bool touches_accumulators(std::size_t address, unsigned bytes, std::size_t pc);  // wgmma.cpp
  // named_barrier.cpp: registers of a thread when the kernel starts, and of the whole block.
  int registers_at_launch() const;
  int register_pool() const;

  // A load, store or atomic by the current thread.
  // `how`: what a trace calls it, where it is no plain one.
  void access(std::size_t address, unsigned bytes, std::size_t pc, Direction direction,
              bool atomic = false, const char* how = nullptr);
  // The hardware loads or stores a run of global memory on behalf of the current thread.
  void access_global_run(std::size_t address, std::size_t bytes, std::size_t pc,
                         Direction direction);
  // The hardware brings a run of global memory nearer: not a read, but the memory must be there.
  void prefetch(std::size_t address, std::size_t bytes, std::size_t pc);
  // After an atomic: what the blocks before it announced there is known to this block from now on.
  void hear(std::size_t address, std::size_t pc);
  // A cp.async by the current thread starts, or has arrived.
  bool start_copy(const Copy& copy);  // false: it must not
  void land_copy(const Copy& copy);

  Launch* launch = nullptr;
  Trace* trace = nullptr;  // null: nobody wants this block's
  bool watched = false;
  int thread_count = 0;
  int current = 0;  // index of the running thread
  SharedMemory shared;
  AsyncState async;
  BlockIdentity identity;
  AccessLog log;
  Votes votes{};  // of the last barrier
  Counts counts;
  std::string report;

 private:
  static void thread_main(void* worker);
  bool run_warp(int warp);
  bool resolve_warp_calls(int warp);
  bool complete_warp_call(int warp, unsigned mask);
  bool complete_shuffle(int warp, unsigned mask);
  void trace_call(int warp, unsigned mask);
  bool release_barrier();
  bool wake();
  bool perform_one();
  bool nothing_left_behind();
  void check_nothing_owed();  // when a thread ends: stores, wgmma
  bool stuck(int warp);
  bool deadlock();
  unsigned lanes_of(int warp) const;  // a mask: lanes that exist
  unsigned lanes_in(int warp, State state) const;
  GlobalBuffer* buffer_at(std::size_t address, std::size_t pc);
  bool is_own(std::size_t address) const;
  void access_shared(std::size_t address, unsigned bytes, std::size_t pc, Direction direction,
                     bool atomic, const char* how);
  void trace_shared(std::size_t offset, unsigned bytes, std::size_t pc, Direction direction,
                    const char* how);
  void access_global(GlobalBuffer& buffer, std::size_t address, unsigned bytes, std::size_t pc,
                     Direction direction, bool atomic);
  bool fail_illegal(std::size_t address, unsigned bytes, std::size_t pc, Direction direction);
  std::uint32_t draw();  // a random number

  std::uint64_t random_ = 0;
  uint3 block_index_{};
  bool failed_ = false;
  std::vector<std::unique_ptr<Thread>> threads_;
  std::array<unsigned, 32> ready_{};        // by warp: a mask of lanes that can run
  std::array<unsigned, 32> waiting_{};      // by warp: lanes in State::waiting
  int alive_ = 0;                           // threads that have not ended
  int given_up_ = 0;                        // waits, since anything else went on
  std::array<GlobalBuffer*, 64> recent_{};  // by instruction: the buffer it touched last
};

bool same_place(const Where& a, const Where& b);

// The worker whose fiber is running on this operating-system thread; null in host code and while
// the emulator itself is at work.
extern constinit thread_local Worker* running;

// Stands wherever a kernel has called the emulator. Functions of the C++ library that kernel files
// use too may exist only once, with hooks: what they do in here is not the kernel's doing. And a
// kernel that has failed stops at the end of the call, when nothing is left to clean up.
struct Entered {
  Entered() : worker(*running) { running = nullptr; }
  ~Entered() {
    if (worker.failed()) worker.current_thread().fiber.suspend(true);
    running = &worker;
  }
  Worker& worker;
};

}  // namespace al::emulator
