// Shuffles, votes, __syncwarp, and what a warp does together (mma, ldmatrix): each lane leaves what
// it gives and waits; the call is completed when every lane of the mask has come to it.
#include <bit>

#include "common/emulator/report.hpp"
#include "common/emulator/worker.hpp"

namespace al::emulator {
namespace {

const char* name_of(const Thread& t) {
  if (t.call == WarpCall::sync) return "__syncwarp";
  if (t.call == WarpCall::ballot) return "a vote";
  if (t.call == WarpCall::collective) return t.collective->name;
  switch (t.kind) {
    case Shuffle::from_lane:
      return "__shfl_sync";
    case Shuffle::up:
      return "__shfl_up_sync";
    case Shuffle::down:
      return "__shfl_down_sync";
    default:
      return "__shfl_xor_sync";
  }
}

std::string hex(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

bool same_call(const Thread& a, const Thread& b) {
  return a.call == b.call && a.mask == b.mask &&
         (a.call != WarpCall::collective || a.collective == b.collective) &&
         same_place(a.where, b.where);
}

// The lane whose value this one gets; its own where it would reach out of its group of `width`.
int source_lane(const Thread& t, int lane) {
  const int group = lane & ~(t.width - 1), end = group + t.width;
  switch (t.kind) {
    case Shuffle::from_lane:
      return group + (t.argument & (t.width - 1));
    case Shuffle::up:
      return lane - t.argument < group ? lane : lane - t.argument;
    case Shuffle::down:
      return lane + t.argument >= end ? lane : lane + t.argument;
    default:
      return (lane ^ t.argument) >= end ? lane : lane ^ t.argument;
  }
}

std::uint64_t call(Worker& w, WarpCall which, unsigned mask, Where where) {
  Thread& t = w.current_thread();
  t.call = which;
  t.mask = mask;
  t.where = where;
  if (!(mask >> (w.current % 32) & 1)) {
    return w.fail("lane outside its own mask",
                  "  thread:  " + w.name(w.current, true) + " calls " + name_of(t) + " with mask " +
                      hex(mask) + " at " + to_string(where) + "\n",
                  "how the mask is made: it must name exactly the lanes that come to this line");
  }
  w.wait(State::at_warp_call, where);
  return t.received;
}

}  // namespace

void sync_warp(unsigned mask, Where where) {
  const Entered entered;
  call(entered.worker, WarpCall::sync, mask, where);
}

unsigned ballot(unsigned mask, bool predicate, Where where) {
  const Entered entered;
  entered.worker.current_thread().given = predicate;
  return static_cast<unsigned>(call(entered.worker, WarpCall::ballot, mask, where));
}

std::uint64_t shuffle(Shuffle kind, unsigned mask, std::uint64_t bits, int argument, int width,
                      Where where) {
  const Entered entered;
  Worker& w = entered.worker;
  Thread& t = w.current_thread();
  t.kind = kind;
  t.given = bits;
  t.argument = argument;
  t.width = width;
  if (width < 1 || width > 32 || !std::has_single_bit(static_cast<unsigned>(width))) {
    return w.fail("shuffle of an impossible width",
                  "  thread:  " + w.name(w.current, true) + " asks for width " +
                      std::to_string(width) + " at " + to_string(where) + "\n",
                  "the width: it can be 1, 2, 4, 8, 16 or 32");
  }
  return call(w, WarpCall::shuffle, mask, where);
}

void warp_collective(const Collective& what, void* operands, Where where) {
  const Entered entered;
  Thread& t = entered.worker.current_thread();
  t.collective = &what;
  t.operands = operands;
  call(entered.worker, WarpCall::collective, 0xffffffff, where);
}

// Loads and stores of matrices are traced as what they access.
void Worker::trace_call(int warp, unsigned mask) {
  const Thread& first = thread(32 * warp + std::countr_zero(mask));
  const char* name = name_of(first);
  if (first.call == WarpCall::collective && !std::strstr(name, "mma")) return;
  std::array<int, 32> from;
  from.fill(-1);
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    const Thread& t = thread(32 * warp + lane);
    from[lane] = t.call == WarpCall::shuffle ? source_lane(t, lane) : lane;
  }
  trace->call(name, first.where, warp, from);
  trace->align(warp);
}

// Completes the calls that all their lanes have come to.
bool Worker::resolve_warp_calls(int warp) {
  unsigned waiting = lanes_in(warp, State::at_warp_call);
  while (waiting != 0) {
    const Thread& first = thread(32 * warp + std::countr_zero(waiting));
    unsigned here = 0;  // lanes of its mask that are in the same call
    for (unsigned rest = waiting & first.mask; rest != 0; rest &= rest - 1) {
      const int lane = std::countr_zero(rest);
      here |= static_cast<unsigned>(same_call(thread(32 * warp + lane), first)) << lane;
    }
    waiting &= ~here;
    if (here == first.mask && !complete_warp_call(warp, here)) return false;
  }
  return true;
}

bool Worker::complete_warp_call(int warp, unsigned mask) {
  const WarpCall which = thread(32 * warp + std::countr_zero(mask)).call;
  if (which == WarpCall::shuffle) {
    ++counts.shuffles;
    if (!complete_shuffle(warp, mask)) return false;
  } else if (which == WarpCall::ballot) {
    unsigned yes = 0;
    for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
      const int lane = std::countr_zero(rest);
      yes |= static_cast<unsigned>(thread(32 * warp + lane).given) << lane;
    }
    for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
      thread(32 * warp + std::countr_zero(rest)).received = yes;
    }
  } else if (which == WarpCall::collective) {
    void* operands[32];
    for (int lane = 0; lane < 32; ++lane) operands[lane] = thread(32 * warp + lane).operands;
    thread(32 * warp).collective->complete(operands);
  } else if (watched) {
    shared.clocks.pass_warp_sync(warp, mask);  // the others order no memory
  }
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    thread(32 * warp + std::countr_zero(rest)).state = State::ready;
  }
  ready_[warp] |= mask;
  if (trace) trace_call(warp, mask);
  if (watched && lanes_in(warp, State::ready) == lanes_of(warp)) log.evaluate(counts);
  return true;
}

bool Worker::complete_shuffle(int warp, unsigned mask) {
  for (unsigned rest = mask; rest != 0; rest &= rest - 1) {
    const int lane = std::countr_zero(rest);
    Thread& t = thread(32 * warp + lane);
    const int source = source_lane(t, lane);
    if (!(mask >> source & 1)) {
      return fail("shuffle from a lane that takes no part",
                  "  thread:  " + name(32 * warp + lane, true) + " reads lane " +
                      std::to_string(source) + " in " + name_of(t) + " at " + to_string(t.where) +
                      "\n  mask:    " + hex(mask) + "\n",
                  "the mask, the width and the lane asked for: what such a lane gives is "
                  "undefined");
    }
    t.received = thread(32 * warp + source).given;
  }
  return true;
}

// Some lanes wait in a call that others of its mask will never come to.
bool Worker::stuck(int warp) {
  const int lane = std::countr_zero(lanes_in(warp, State::at_warp_call));
  const int waiting = 32 * warp + lane;
  const Thread& t = thread(waiting);
  const std::string here = "  thread:  " + name(waiting, true) + " waits in " + name_of(t) +
                           " at " + to_string(t.where) + "\n  mask:    " + hex(t.mask) + "\n";
  for (unsigned rest = t.mask; rest != 0; rest &= rest - 1) {
    const int missing = 32 * warp + std::countr_zero(rest);
    if (missing >= thread_count) {
      return fail("warp call names a lane that does not exist", here,
                  "the block's size and the mask: the block has no lane " +
                      std::to_string(missing % 32) + " in its last warp");
    }
    const Thread& other = thread(missing);
    const std::string who = "  other:   " + name(missing, true) + " ";
    if (other.state == State::exited) {
      return fail("warp call names a dead lane", here + who + "has returned\n",
                  "an early return before that line; return after the call, or leave the lane "
                  "out of the mask");
    }
    if (other.state == State::at_barrier) {
      return fail("divergent warp call",
                  here + who + "waits at the barrier at " + to_string(other.where) + "\n",
                  "the branch that sent the lanes of one warp to different lines");
    }
    if (!same_call(other, t)) {
      return fail("divergent warp call",
                  here + who + "waits in " + name_of(other) + " at " + to_string(other.where) +
                      " with mask " + hex(other.mask) + "\n",
                  "the masks, and the branch that sent the lanes of one warp to different "
                  "lines");
    }
  }
  __builtin_unreachable();  // then the call would have been completed
}

}  // namespace al::emulator
