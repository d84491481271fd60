// Runs a block: its warps in a random order, each until all its lanes wait or have ended. Between
// rounds the hardware does some of its work, and waits that are over end; when nothing else is left
// the barrier opens. What a block waits for and can never come is found here, because nobody is
// left to run.
#include <bit>

#include "common/emulator/indices.hpp"
#include "common/emulator/report.hpp"
#include "common/emulator/worker.hpp"

namespace al::emulator {

constinit thread_local Worker* running = nullptr;

void Worker::thread_main(void* worker) {
  Worker& w = *static_cast<Worker*>(worker);
  running = &w;
  w.launch->grid.entry(w.launch->grid.body);
  running = nullptr;
  w.check_nothing_owed();
  w.current_thread().state = State::exited;
  --w.alive_;
  w.current_thread().fiber.suspend(true);
}

bool Worker::run_block(Launch& l, std::uint64_t linear, std::uint64_t seed, bool watch) {
  launch = &l;
  watched = watch;
  trace = l.trace && l.trace->block() == linear ? l.trace : nullptr;
  if (trace) trace->begin(counts);
  failed_ = false;
  random_ = seed;
  const dim3 size = l.grid.block;
  thread_count = static_cast<int>(size.x * size.y * size.z);
  block_index_ = unflatten(linear, l.grid.grid);
  set_block(l.grid.grid, size, block_index_);
  shared.begin_block(watch, thread_count);
  async.begin_block();
  Counts of_a_block_that_failed;
  log.evaluate(of_a_block_that_failed);
  identity.launch = l.serial;
  identity.serial = l.serial + 1 + static_cast<std::uint32_t>(linear);
  identity.fenced = false;
  identity.seen.clear();
  recent_.fill(nullptr);

  while (threads_.size() < static_cast<std::size_t>(thread_count)) {
    threads_.push_back(std::make_unique<Thread>());
  }
  uint3 index{};
  for (int i = 0; i < thread_count; ++i) {
    Thread& t = thread(i);
    t.index = index;
    t.state = State::ready;
    t.has_waited = !l.grid.overlaps;
    t.copies.clear();
    t.group_sizes.clear();
    t.last_wait_pc = 0;
    t.fiber.start(&thread_main, this);
    if (++index.x == size.x) index.x = 0, ++index.y;
    if (index.y == size.y) index.y = 0, ++index.z;
  }
  const int warps = (thread_count + 31) / 32;
  ready_.fill(0);
  waiting_.fill(0);
  given_up_ = 0;
  alive_ = thread_count;
  for (int w = 0; w < warps; ++w) ready_[w] = lanes_of(w);

  bool fine = true;
  do {
    // An odd step comes past each of 32 warps once, from anywhere.
    const std::uint32_t start = draw(), step = draw() | 1;
    for (std::uint32_t i = 0; fine && i < 32; ++i) {
      const std::uint32_t w = (start + i * step) % 32;
      if (ready_[w] != 0) fine = run_warp(static_cast<int>(w));
    }
    if (watched && shared.clocks.exhausted()) watched = false;
  } while (fine && nothing_left_behind() &&
           ((!async.deferred.empty() && draw() % 2 == 0 && perform_one()) || wake() ||
            perform_one() || release_barrier()));
  if (trace) trace->end(counts, shared.arrays());
  return !failed_;
}

// Lets threads go on whose waits are over; false: none.
bool Worker::wake() {
  bool any = false, could_give_up = false;
  const auto pass = [&](bool give_up) {
    for (int w = 0; w * 32 < thread_count; ++w) {
      for (unsigned rest = waiting_[w]; rest != 0; rest &= rest - 1) {
        const int lane = std::countr_zero(rest);
        Thread& t = thread(32 * w + lane);
        could_give_up |= t.awaited->may_give_up;
        const bool over = t.awaited->over();
        if (!over && !(give_up && t.awaited->may_give_up)) continue;
        t.received = over;
        t.state = State::ready;
        ready_[w] |= 1u << lane;
        waiting_[w] &= ~(1u << lane);
        any = true;
      }
    }
  };
  pass(false);
  if (any || !async.deferred.empty()) {
    given_up_ = 0;
  } else if (could_give_up && ++given_up_ < 100) {
    pass(true);
  }
  return any;
}

// A block must not end while hardware still reads or writes its shared memory.
bool Worker::nothing_left_behind() {
  if (alive_ > 0 || async.deferred.empty()) return true;
  return fail("block ends while hardware is at work in its shared memory",
              "  work:    " + async.deferred.front()->text() + "\n",
              "the wait for it, which every path to the end of the kernel must pass: "
              "mbarrier_wait(), bulk_store_wait_read<0>(), wgmma_wait<0>()");
}

// The hardware does something; false: it has nothing to do.
bool Worker::perform_one() {
  if (async.deferred.empty()) return false;
  std::size_t i = draw() % async.deferred.size();
  const int queue = async.deferred[i]->queue;
  for (std::size_t j = 0; queue >= 0 && j < i; ++j) {
    if (async.deferred[j]->queue == queue) i = j;
  }
  const std::unique_ptr<Deferred> work = std::move(async.deferred[i]);
  async.deferred.erase(async.deferred.begin() + static_cast<std::ptrdiff_t>(i));
  work->perform(*this);
  given_up_ = 0;
  return !failed_;
}

// Until every lane waits at a barrier or has ended.
bool Worker::run_warp(int warp) {
  while (ready_[warp] != 0) {
    const std::uint32_t start = draw(), step = draw() | 1;
    for (std::uint32_t i = 0; i < 32; ++i) {
      const std::uint32_t lane = (start + i * step) % 32;
      if (!(ready_[warp] >> lane & 1)) continue;
      ready_[warp] &= ~(1u << lane);
      current = 32 * warp + static_cast<int>(lane);
      set_thread(thread(current).index);
      thread(current).fiber.resume();
      if (failed_) return false;
    }
    if (!resolve_warp_calls(warp)) return false;
  }
  if (watched) log.evaluate(counts);
  if (trace) trace->align(warp);
  return lanes_in(warp, State::at_warp_call) == 0 || waiting_[warp] != 0 || stuck(warp);
}

// All threads wait at a barrier or have ended. Lets them go on; false: none is left, or they
// wait for what will never come.
bool Worker::release_barrier() {
  if (failed_) return false;
  int first = -1, ended = -1, elsewhere = -1;
  votes = {0, thread_count};
  for (int w = 0; w * 32 < thread_count; ++w) {
    if (waiting_[w] != 0) return deadlock();
  }
  for (int i = 0; i < thread_count; ++i) {
    const Thread& t = thread(i);
    if (t.state == State::exited) {
      if (ended < 0) ended = i;
      continue;
    }
    if (first < 0) first = i;
    if (!same_place(t.where, thread(first).where) && elsewhere < 0) elsewhere = i;
    votes.yes += t.predicate;
  }
  if (first < 0) return false;
  if (elsewhere >= 0) {
    return fail("divergent barrier",
                "  thread:  " + name(first) + " waits at " + to_string(thread(first).where) +
                    "\n  other:   " + name(elsewhere) + " waits at " +
                    to_string(thread(elsewhere).where) + "\n",
                "the branch that sent them to different barriers; all threads of a block must "
                "come to the same one");
  }
  if (ended >= 0) {
    return fail("exited thread at a barrier",
                "  thread:  " + name(first) + " waits at " + to_string(thread(first).where) +
                    "\n  other:   " + name(ended) + " has returned and will never come\n",
                "an early return, or a loop that some threads leave sooner, before that line; "
                "let every thread come to the barrier and guard only the work");
  }
  ++counts.barriers;
  if (trace) trace->pass_barrier(thread(first).where, counts);
  shared.clocks.pass_barrier();
  for (int w = 0; w * 32 < thread_count; ++w) ready_[w] = lanes_of(w);
  for (int i = 0; i < thread_count; ++i) thread(i).state = State::ready;
  return true;
}

void Worker::wait(State state, Where where) {
  Thread& t = current_thread();
  t.state = state;
  t.where = where;
  t.fiber.suspend();
}

bool Worker::wait_for(Awaited& awaited, Where where) {
  if (awaited.over()) return true;
  current_thread().awaited = &awaited;
  waiting_[current / 32] |= 1u << current % 32;
  wait(State::waiting, where);
  return current_thread().received != 0;
}

int Worker::new_agent(const std::string& called) {
  async.agents.push_back(called);
  // There are enough for any sane kernel; beyond, they share clocks and some faults go unseen.
  return kMaxThreads + static_cast<int>((async.agents.size() - 1) % kHardwareAgents);
}

std::string Worker::agent_name(int agent) {
  if (agent < 0) return "several threads";
  return agent < kMaxThreads ? name(agent, true) : async.agents[agent - kMaxThreads];
}

void barrier(Where where) { barrier_vote(false, where); }

Votes barrier_vote(bool predicate, Where where) {
  const Entered entered;
  Worker& w = entered.worker;
  w.current_thread().predicate = predicate;
  w.wait(State::at_barrier, where);
  return w.votes;
}

bool Worker::fail(const std::string& what, const std::string& details, const std::string& look_at) {
  if (failed_) return false;
  failed_ = true;
  report = what + "\n  kernel:  " + launch->grid.name + ", block " + to_string(block_index_) +
           "\n" + details + "  look at: " + look_at;
  return false;
}

std::string Worker::name(int i, bool with_lane) {
  std::string text = "thread " + to_string(thread(i).index);
  if (with_lane) {
    text += ", lane " + std::to_string(i % 32) + " of warp " + std::to_string(i / 32) + ",";
  }
  return text;
}

bool same_place(const Where& a, const Where& b) {
  return a.line() == b.line() && a.column() == b.column() &&
         (a.file_name() == b.file_name() || std::strcmp(a.file_name(), b.file_name()) == 0);
}

unsigned Worker::lanes_of(int warp) const {
  const int lanes = thread_count - 32 * warp;
  return lanes >= 32 ? 0xffffffff : (1u << lanes) - 1;
}

unsigned Worker::lanes_in(int warp, State state) const {
  unsigned mask = 0;
  for (int lane = 0; lane < 32 && 32 * warp + lane < thread_count; ++lane) {
    mask |= static_cast<unsigned>(threads_[32 * warp + lane]->state == state) << lane;
  }
  return mask;
}

std::uint32_t Worker::draw() {
  random_ = random_ * 6364136223846793005u + 1442695040888963407u;
  return static_cast<std::uint32_t>(random_ >> 33);
}

}  // namespace al::emulator
