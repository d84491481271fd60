// wgmma. The 128 threads of a warpgroup come to it one after the other; the last one starts it for
// all. It is done later, at a moment drawn from the seed: shared memory is read then, and the
// accumulators are NaN until the thread has waited.
#include "common/emulator/wgmma.hpp"

#include "common/emulator/decode.hpp"
#include "common/emulator/multiply.hpp"
#include "common/emulator/report.hpp"
#include "common/emulator/wgmma_operands.hpp"
#include "common/emulator/worker.hpp"

namespace al::emulator {
namespace {

std::string who(Worker& w, Where where) {
  return "  thread:  " + w.name(w.current, true) + " at " + to_string(where) + "\n";
}

// A thread's place in the warpgroup's accumulators: element e of thread t.
int row_of(int t, int e) { return t / 32 * 16 + t % 32 / 4 + e / 2 % 2 * 8; }
int column_of(int t, int e) { return e / 4 * 8 + t % 4 * 2 + e % 2; }

Warpgroup& group_of(Worker& w) {
  std::vector<Warpgroup>& all = w.async.warpgroups;
  if (all.empty()) all.resize(kMaxThreads / kGroupThreads);
  return all[w.current / kGroupThreads];
}

struct OthersComing final : Awaited {
  Warpgroup& group;
  std::uint32_t mine;
  explicit OthersComing(Warpgroup& g) : group(g), mine(g.generation) {}
  bool over() override { return group.generation != mine; }
  std::string text() override {
    return "in a wgmma, to which " + std::to_string(group.arrived) +
           " of the 128 threads of its warpgroup have come";
  }
  std::string look_at() override {
    return "the branch that keeps some warps of the warpgroup from the wgmma: all four must come "
           "to "
           "the same ones in the same order";
  }
};

struct Performed final : Awaited {
  Warpgroup& group;
  std::size_t wanted;
  Performed(Warpgroup& g, std::size_t n) : group(g), wanted(n) {}
  bool over() override { return group.performed >= wanted; }
  std::string text() override { return "for its wgmma"; }
  std::string look_at() override { return "the emulator: wgmma always ends"; }
};

struct WgmmaWork final : Deferred {
  Warpgroup& group;
  WgmmaCall call;
  std::vector<float> a;  // [64][k], where a is in registers
  Accumulators& accumulators;
  WgmmaWork(int queue_number, Warpgroup& g, Accumulators& d)
      : Deferred(queue_number), group(g), call(g.call), accumulators(d) {
    if (!call.a_in_registers) return;
    a.resize(64 * call.k());
    const int E = 4 / call.element;
    for (int t = 0; t < kGroupThreads; ++t) {
      float mine[16];
      call.decode_a(g.a[t].data(), 4 * E, mine);
      for (int r = 0; r < 4; ++r) {
        const int row = t / 32 * 16 + t % 32 / 4 + r % 2 * 8, column = r / 2 * 4 * E + t % 4 * E;
        std::copy_n(mine + r * E, E, &a[row * call.k() + column]);
      }
    }
  }

  void perform(Worker& w) override {
    const int k = call.k(), n = call.n, T = 16 / call.element;
    float parts[16];
    if (!call.a_in_registers) {
      a.resize(64 * k);
      each_16_bytes(call.a, 64, call.element, call.a_mn_major,
                    [&](std::size_t at, int mn, int first) {
                      call.decode_a(w.shared.at(at), T, parts);
                      for (int i = 0; i < T; ++i) {
                        const int row = call.a_mn_major ? mn + i : mn;
                        a[row * k + (call.a_mn_major ? first : first + i)] = parts[i];
                      }
                    });
    }
    std::vector<float> b(static_cast<std::size_t>(k) * n);  // [k][n]
    each_16_bytes(call.b, n, call.element, call.b_mn_major, [&](std::size_t at, int mn, int first) {
      call.decode_b(w.shared.at(at), T, parts);
      for (int i = 0; i < T; ++i) {
        const int row = call.b_mn_major ? mn + i : mn;
        b[(call.b_mn_major ? first : first + i) * n + row] = parts[i];
      }
    });
    std::vector<float>& d = accumulators.values;
    if (!call.accumulate) std::fill(d.begin(), d.end(), 0.0f);
    multiply_add(d.data(), a.data(), b.data(), 64, n, k);
    ++group.performed;
  }
  std::string text() override { return "a wgmma, started at " + to_string(call.where); }
};

// What the operand covers is read on behalf of all four warps.
bool check_operand(Worker& w, Warpgroup& group, std::uint64_t descriptor, int rows, bool mn_major,
                   Time time) {
  const int first = w.current / kGroupThreads * kGroupThreads;
  const int threads[] = {first, first + 32, first + 64, first + 96};
  const WgmmaCall& call = group.call;
  bool fine = true;
  each_16_bytes(descriptor, rows, call.element, mn_major, [&](std::size_t at, int, int) {
    if (!fine) return;
    const SharedMemory::Finding found = w.shared.hardware_read(at, 16, threads, group.agent, time,
                                                               static_cast<std::uint32_t>(call.pc));
    fine = found.verdict == SharedMemory::Verdict::fine ||
           w.fail_shared(found, at, 16, call.pc, "starts a wgmma on");
  });
  return fine;
}

// In range even where nobody watches.
bool check_range(Worker& w, const WgmmaCall& call, std::uint64_t descriptor, int rows,
                 bool mn_major) {
  bool fine = true;
  each_16_bytes(descriptor, rows, call.element, mn_major, [&](std::size_t at, int, int) {
    fine &= w.shared.contains(reinterpret_cast<std::size_t>(w.shared.at(at)));
  });
  return fine || w.fail("wgmma descriptor that reaches out of shared memory", who(w, call.where),
                        "the descriptor's distances in bytes");
}

// All 128 threads have come.
bool start(Worker& w, Warpgroup& group, int number) {
  const WgmmaCall& call = group.call;
  const auto known =
      std::find_if(group.accumulators.begin(), group.accumulators.end(),
                   [&](const Accumulators& d) { return d.n == call.n && d.d == group.d; });
  const bool fresh = known == group.accumulators.end();
  if (fresh || call.a_in_registers) {
    for (int t = 0; t < kGroupThreads; ++t) {
      if (group.fenced[t]) continue;
      return w.fail("wgmma without wgmma_fence",
                    who(w, call.where) + "  missing: " + w.name(number * kGroupThreads + t, true) +
                        " has not called it since its last wgmma_wait\n",
                    "wgmma_fence() between what writes accumulators or a in registers, and the "
                    "first wgmma that uses them");
    }
  }
  if (!check_range(w, call, call.b, call.n, call.b_mn_major)) return false;
  if (!call.a_in_registers && !check_range(w, call, call.a, 64, call.a_mn_major)) return false;
  if (group.agent < 0) {
    group.agent = w.new_agent("a wgmma of warps " + std::to_string(4 * number) + " to " +
                              std::to_string(4 * number + 3));
  }
  Time time = 0;
  if (w.watched) {
    w.shared.clocks.be_exact();
    time = w.shared.clocks.tick();
    if (!check_operand(w, group, call.b, call.n, call.b_mn_major, time)) return false;
    if (!call.a_in_registers && !check_operand(w, group, call.a, 64, call.a_mn_major, time)) {
      return false;
    }
  }
  group.times.push_back(time);
  Accumulators& accumulators = fresh ? group.accumulators.emplace_back() : *known;
  accumulators.last = group.started++;
  if (fresh) {
    accumulators.d = group.d;
    accumulators.n = call.n;
    accumulators.values.resize(64 * static_cast<std::size_t>(call.n));
    for (int t = 0; t < kGroupThreads; ++t) {
      for (int e = 0; e < call.n / 2; ++e) {
        accumulators.values[row_of(t, e) * call.n + column_of(t, e)] = group.d[t][e];
      }
      std::memset(group.d[t], 0xff, call.n / 2 * sizeof(float));
    }
  }
  w.defer(std::make_unique<WgmmaWork>(number, group, accumulators));
  return true;
}

}  // namespace

template <typename TA, typename TB>
void wgmma(float* d, int n, const std::uint32_t* a, std::uint64_t a_descriptor,
           std::uint64_t b_descriptor, bool accumulate, bool a_mn_major, bool b_mn_major,
           Where where) {
  static_assert(sizeof(TA) == sizeof(TB));
  const Entered entered;
  Worker& w = entered.worker;
  const int number = w.current / kGroupThreads, t = w.current % kGroupThreads;
  if ((number + 1) * kGroupThreads > w.thread_count) {
    w.fail("wgmma by less than a warpgroup", who(w, where),
           "the block's size: the 128 threads from a multiple of 128 on must all be there");
    return;
  }
  Warpgroup& group = group_of(w);
  const WgmmaCall call{n,
                       a != nullptr,
                       accumulate,
                       a_mn_major,
                       b_mn_major,
                       a ? 0 : a_descriptor,
                       b_descriptor,
                       static_cast<int>(sizeof(TA)),
                       &decode<TA>,
                       &decode<TB>,
                       where,
                       reinterpret_cast<std::size_t>(__builtin_return_address(0))};
  if (group.arrived == 0) {
    group.call = call;
    group.first_thread = w.current;
  } else if (!(call == group.call) || !same_place(call.where, group.call.where)) {
    w.fail(
        "threads of a warpgroup disagree about a wgmma",
        who(w, where) + "  other:   " + w.name(group.first_thread, true) + " is at " +
            to_string(group.call.where) + "\n",
        "what the line, the descriptors and `accumulate` depend on: they must be the same in all "
        "128 threads");
    return;
  }
  if (w.trace) {
    w.trace->note("wgmma m64n" + std::to_string(n) + "k" + std::to_string(call.k()) +
                      (a ? ", A in registers" : ""),
                  where, w.current);
  }
  group.d[t] = d;
  if (a) std::copy_n(a, 4, group.a[t].begin());
  OthersComing others(group);
  if (++group.arrived < kGroupThreads) {
    w.wait_for(others, where);
    return;
  }
  group.arrived = 0;
  ++group.generation;
  start(w, group, number);
}

#define AL_WGMMA(TA, TB)                                                                       \
  template void wgmma<TA, TB>(float*, int, const std::uint32_t*, std::uint64_t, std::uint64_t, \
                              bool, bool, bool, Where);
AL_WGMMA(__half, __half)
AL_WGMMA(__nv_bfloat16, __nv_bfloat16)
AL_WGMMA(__nv_fp8_e4m3, __nv_fp8_e4m3)
AL_WGMMA(__nv_fp8_e4m3, __nv_fp8_e5m2)
AL_WGMMA(__nv_fp8_e5m2, __nv_fp8_e4m3)
AL_WGMMA(__nv_fp8_e5m2, __nv_fp8_e5m2)

void wgmma_fence() {
  const Entered entered;
  group_of(entered.worker).fenced[entered.worker.current % kGroupThreads] = true;
}

void wgmma_commit() {
  const Entered entered;
  Warpgroup& group = group_of(entered.worker);
  group.groups[entered.worker.current % kGroupThreads].push_back(group.started);
}

void wgmma_wait(std::size_t newer_groups, Where where) {
  const Entered entered;
  Worker& w = entered.worker;
  const int t = w.current % kGroupThreads;
  Warpgroup& group = group_of(w);
  group.fenced[t] = false;
  std::vector<std::size_t>& groups = group.groups[t];
  if (groups.size() <= newer_groups) return;
  const auto done = groups.end() - static_cast<std::ptrdiff_t>(newer_groups);
  const std::size_t end = *(done - 1);
  groups.erase(groups.begin(), done);
  Performed performed(group, end);
  w.wait_for(performed, where);
  if (w.trace) w.trace->note("waits for its wgmma", where, w.current);
  if (w.watched && end > 0) w.shared.clocks.learn(w.current, group.agent, group.times[end - 1]);
  for (auto d = group.accumulators.begin(); d != group.accumulators.end();) {
    if (d->last < end && d->d[t]) {
      for (int e = 0; e < d->n / 2; ++e) {
        d->d[t][e] = d->values[row_of(t, e) * d->n + column_of(t, e)];
      }
      d->d[t] = nullptr;
    }
    const bool gone = std::all_of(d->d.begin(), d->d.end(), [](float* x) { return !x; });
    d = gone ? group.accumulators.erase(d) : std::next(d);
  }
}

// Does the current thread touch accumulators that a wgmma still works on?
bool Worker::touches_accumulators(std::size_t address, unsigned bytes, std::size_t pc) {
  const int t = current % kGroupThreads;
  for (const Accumulators& d : async.warpgroups[current / kGroupThreads].accumulators) {
    const auto begin = reinterpret_cast<std::size_t>(d.d[t]);
    if (begin == 0 || address + bytes <= begin || address >= begin + d.n / 2 * sizeof(float)) {
      continue;
    }
    fail("use of accumulators that a wgmma still works on",
         "  thread:  " + name(current, true) + " touches d[" +
             std::to_string((address - begin) / sizeof(float)) + "] at " + line_of(pc) + "\n",
         "wgmma_commit() and wgmma_wait<N>(), N counting the newer groups that may go on");
    return true;
  }
  return false;
}

}  // namespace al::emulator
