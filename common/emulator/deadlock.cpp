// When no thread of a block can go on and no hardware is at work for it: who waits for what.
#include "common/emulator/report.hpp"
#include "common/emulator/worker.hpp"

namespace al::emulator {

bool Worker::deadlock() {
  // Threads that wait at one line for one thing are one line of the report.
  struct Group {
    int first, count;
    std::string what;
  };
  std::vector<Group> groups;
  std::string look_at;
  for (int i = 0; i < thread_count; ++i) {
    const Thread& t = thread(i);
    std::string what;
    if (t.state == State::exited) {
      continue;
    } else if (t.state == State::waiting) {
      what = t.awaited->text();
      if (look_at.empty()) look_at = t.awaited->look_at();
    } else {
      what = t.state == State::at_barrier ? "at a __syncthreads()" : "for other lanes of its warp";
    }
    what += ", at " + to_string(t.where);
    const auto same = [&](const Group& g) { return g.what == what; };
    const auto group = std::find_if(groups.begin(), groups.end(), same);
    if (group == groups.end()) {
      groups.push_back({i, 1, what});
    } else {
      ++group->count;
    }
  }
  std::string details;
  for (const Group& g : groups) {
    details += "  waits:   " + name(g.first, true);
    if (g.count > 1) details += " and " + std::to_string(g.count - 1) + " more,";
    details += " " + g.what + "\n";
  }
  for (const auto& [offset, m] : async.mbarriers)
    details += "  barrier: " + mbarrier_state(offset) + "\n";
  return fail("deadlock: nothing is left that could go on", details, look_at);
}

}  // namespace al::emulator
