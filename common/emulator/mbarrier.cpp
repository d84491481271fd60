// mbarriers: phases, arrivals and bytes. The 8 bytes in shared memory only stand for them; what
// they count is kept in AsyncState. See common/ptx/mbarrier.cuh.
#include "common/emulator/hopper.hpp"
#include "common/emulator/report.hpp"
#include "common/emulator/worker.hpp"

namespace al::emulator {

std::string Worker::mbarrier_name(std::size_t offset) {
  const SharedArray* array = shared.nearest(offset);
  const std::size_t element = (offset - array->offset) / 8;
  return array->bytes == 8 ? array->name : array->name + ("[" + std::to_string(element) + "]");
}

std::string Worker::mbarrier_state(std::size_t offset) {
  const Mbarrier& m = async.mbarriers.at(offset);
  std::string text = "phase " + std::to_string(m.phase) + " of " + mbarrier_name(offset) + ": " +
                     std::to_string(m.missing) + " of " + std::to_string(m.arrivals) +
                     " arrivals are missing";
  if (m.bytes > 0) text += ", " + std::to_string(m.bytes) + " announced bytes have not come";
  if (m.bytes < 0) text += ", " + std::to_string(-m.bytes) + " bytes too many have come";
  return text;
}

// The barrier that a call of the current thread names; null: it must not, and that is reported.
Mbarrier* Worker::mbarrier_at(const std::uint64_t* barrier, const char* call, std::size_t pc,
                              Where where) {
  const auto address = reinterpret_cast<std::size_t>(barrier);
  const auto who = [&] {
    return "  thread:  " + name(current, true) + " in " + call + " at " + to_string(where) + "\n";
  };
  if (!shared.contains(address) || address % 8 != 0) {
    fail("mbarrier that is no 8 bytes of shared memory", who(),
         "the pointer: take std::uint64_t from the SharedArena");
    return nullptr;
  }
  if (watched) access(address, 8, pc, Direction::store, true);
  if (failed_) return nullptr;
  const auto found = async.mbarriers.find(shared.offset_of(address));
  if (found == async.mbarriers.end()) {
    fail("mbarrier that was never initialised", who(),
         "mbarrier_init() of " + mbarrier_name(shared.offset_of(address)) +
             " by one thread, and a __syncthreads() before others use it");
    return nullptr;
  }
  return &found->second;
}

void Worker::maybe_complete(Mbarrier& m) {
  if (m.missing > 0 || m.bytes != 0) return;
  ++m.phase;
  m.missing = m.arrivals;
  m.completed = m.arrived;
}

namespace {

struct Phase final : Awaited {
  Worker& worker;
  std::size_t offset;
  std::uint32_t parity;
  Phase(Worker& w, std::size_t where_it_is, std::uint32_t which)
      : worker(w), offset(where_it_is), parity(which) {}

  // A fresh barrier is in phase 0: the one before it, of parity 1, counts as complete.
  bool over() override { return worker.async.mbarriers.at(offset).phase % 2 != parity; }
  std::string text() override {
    return "for parity " + std::to_string(parity) + ", " + worker.mbarrier_state(offset);
  }
  std::string look_at() override {
    const Mbarrier& m = worker.async.mbarriers.at(offset);
    if (m.bytes != 0) {
      return "the bytes given to mbarrier_arrive_expect_tx() and the sizes of the copies that name "
             "this barrier: boxes count whole, also where they reach out of the tensor";
    }
    return "who should arrive and how often, against the count given to mbarrier_init(); and the "
           "parity waited for, which changes each time round the ring (the first wait for a full "
           "stage is for parity 0, the first for an empty one for parity 1)";
  }
};

std::size_t return_address(void* pc) { return reinterpret_cast<std::size_t>(pc); }

bool wait(std::uint64_t* barrier, std::uint32_t parity, std::size_t pc, Where where,
          bool only_try) {
  const Entered entered;
  Worker& w = entered.worker;
  const char* call = only_try ? "mbarrier_try_wait" : "mbarrier_wait";
  Mbarrier* m = w.mbarrier_at(barrier, call, pc, where);
  if (!m) return false;
  Phase phase(w, w.shared.offset_of(reinterpret_cast<std::size_t>(barrier)), parity % 2);
  phase.may_give_up = only_try;
  if (!w.wait_for(phase, where)) return false;
  if (w.trace) {
    w.trace->pass("the wait for " + w.mbarrier_name(phase.offset), where, w.current, w.counts);
  }
  if (w.watched) w.shared.clocks.acquire(w.current, m->completed);
  return true;
}

}  // namespace

void mbarrier_init(std::uint64_t* barrier, std::uint32_t arrivals, Where where) {
  const Entered entered;
  Worker& w = entered.worker;
  const auto address = reinterpret_cast<std::size_t>(barrier);
  const std::string who =
      "  thread:  " + w.name(w.current, true) + " at " + to_string(where) + "\n";
  if (!w.shared.contains(address) || address % 8 != 0) {
    w.fail("mbarrier that is no 8 bytes of shared memory", who,
           "the pointer: take std::uint64_t from the SharedArena");
    return;
  }
  if (arrivals == 0 || arrivals >= 1u << 20) {
    w.fail("mbarrier of an impossible count", who, "the count of arrivals: it is 1 to 2^20 - 1");
    return;
  }
  if (w.watched) {
    w.shared.clocks.be_exact();
    w.access(address, 8, return_address(__builtin_return_address(0)), Direction::store);
    if (w.failed()) return;
  }
  std::memset(barrier, 0, 8);
  const std::size_t offset = w.shared.offset_of(address);
  Mbarrier& m = w.async.mbarriers[offset];
  m = {};
  m.arrivals = m.missing = arrivals;
  m.initialised_by = w.current;
  m.agent = w.new_agent("a copy that " + w.mbarrier_name(offset) + " counts");
}

void mbarrier_arrive(std::uint64_t* barrier, std::uint32_t announced_bytes, bool arrives,
                     Where where) {
  const Entered entered;
  Worker& w = entered.worker;
  Mbarrier* m = w.mbarrier_at(barrier, arrives ? "mbarrier_arrive" : "mbarrier_expect_tx",
                              return_address(__builtin_return_address(0)), where);
  if (!m) return;
  m->bytes += announced_bytes;
  if (w.trace) {
    const std::string name =
        w.mbarrier_name(w.shared.offset_of(reinterpret_cast<std::size_t>(barrier)));
    const std::string bytes = std::to_string(announced_bytes) + " bytes at " + name;
    w.trace->note(announced_bytes > 0 ? "announces " + bytes : "arrives at " + name, where,
                  w.current);
  }
  if (!arrives) return;
  if (w.watched) w.shared.clocks.release(w.current, m->arrived);
  --m->missing;
  w.maybe_complete(*m);
}

void mbarrier_wait(std::uint64_t* barrier, std::uint32_t parity, Where where) {
  wait(barrier, parity, return_address(__builtin_return_address(0)), where, false);
}

bool mbarrier_try_wait(std::uint64_t* barrier, std::uint32_t parity, Where where) {
  return wait(barrier, parity, return_address(__builtin_return_address(0)), where, true);
}

void fence_mbarrier_init() {
  const Entered entered;
  for (auto& [offset, m] : entered.worker.async.mbarriers) {
    m.fenced |= m.initialised_by == entered.worker.current;
  }
}

void fence_proxy_async() {
  const Entered entered;
  Worker& w = entered.worker;
  for (auto& [offset, m] : w.async.mbarriers) m.fenced |= m.initialised_by == w.current;
  if (w.watched) w.shared.clocks.fence_proxy(w.current);
}

}  // namespace al::emulator
