#include "common/emulator/trace.hpp"

#include <algorithm>
#include <bit>
#include <nlohmann/json.hpp>

#include "common/emulator/launch.hpp"
#include "common/emulator/report.hpp"
#include "common/emulator/shared_memory.hpp"

namespace al::emulator {

using Json = nlohmann::ordered_json;

Trace::Trace(const Grid& grid, std::uint64_t block, int thread)
    : kernel_(grid.name), grid_(grid.grid), size_(grid.block), block_(block), thread_(thread) {}

Trace::Phase* Trace::phase_of(int lane) {
  const std::size_t number = phase_[lane];
  if (number >= kPhases) return nullptr;
  if (number >= phases_.size()) phases_.resize(number + 1);
  return &phases_[number];
}

Trace::Step* Trace::step(const std::string& what, const std::string& array, std::size_t pc,
                         const std::string& where, int lane) {
  Phase* const phase = phase_of(lane);
  if (!phase) return nullptr;
  Step& s = phase->steps[{what, array, pc, where}];
  ++clock_[lane];
  if (s.what.empty()) {
    s.what = what, s.array = array, s.pc = pc, s.where = where;
    s.order = clock_[lane];
  }
  return &s;
}

void Trace::access(Space space, Direction direction, const char* how, const std::string& array,
                   std::size_t pc, int thread, std::size_t offset, unsigned bytes) {
  const bool shared = space == Space::shared;
  if (Phase* const phase = phase_of(traced_lane())) {
    Moved& moved = phase->moved[{shared, array}];
    (direction == Direction::load ? moved.read : moved.written) += bytes;
  }
  if (!mine(thread)) return;
  const int lane = thread % 32;
  Step* s = step(how, array, pc, "", lane);
  if (!s) return;
  s->shared = shared;
  s->bytes = bytes;
  const std::uint32_t n = s->times[lane]++;
  if (n >= kTimes) return;
  if (n >= s->first.size()) s->first.resize(n + 1);
  s->first[n].offset[lane] = static_cast<std::uint32_t>(offset);
  s->first[n].mask |= 1u << lane;
}

void Trace::run(Direction direction, const std::string& array, std::size_t pc, int thread,
                std::size_t offset, std::size_t bytes) {
  access(Space::global, direction, direction == Direction::load ? "bulk load" : "bulk store", array,
         pc, thread, offset, static_cast<unsigned>(bytes));
}

void Trace::call(const char* name, Where where, int warp, const std::array<int, 32>& from) {
  if (!mine(32 * warp)) return;
  Step* s = nullptr;
  for (int lane = 0; lane < 32; ++lane) {
    if (from[lane] < 0) continue;
    s = step(name, "", 0, to_string(where), lane);
    if (!s) return;
    ++s->times[lane];
  }
  if (!s || s->first.size() == kTimes) return;
  Time& t = s->first.emplace_back();
  t.from = from;
  for (int lane = 0; lane < 32; ++lane) t.mask |= static_cast<unsigned>(from[lane] >= 0) << lane;
}

void Trace::note(const std::string& what, Where where, int thread) {
  if (!mine(thread)) return;
  Step* s = step(what, "", 0, to_string(where), thread % 32);
  if (s) ++s->times[thread % 32];
}

void Trace::align(int warp) {
  Phase* const phase = mine(32 * warp) ? phase_of(traced_lane()) : nullptr;
  if (!phase) return;
  for (auto& [key, s] : phase->steps) {
    if (s.pc != 0) s.times.fill(*std::ranges::max_element(s.times));
  }
}

namespace {

// Field by field, now - before.
Counts difference(const Counts& now, const Counts& before) {
  Counts d;
  for (const auto field :
       {&Counts::global_requests, &Counts::global_sectors, &Counts::shared_requests,
        &Counts::shared_wavefronts, &Counts::shuffles}) {
    d.*field = now.*field - before.*field;
  }
  return d;
}

Json triple(dim3 x) { return {x.x, x.y, x.z}; }

}  // namespace

void Trace::finish_phase(const std::string& ended_by, const Counts& counts) {
  if (Phase* const phase = phase_of(traced_lane())) {
    phase->ended_by = ended_by;
    phase->counts = difference(counts, before_);
  }
  before_ = counts;
}

void Trace::pass_barrier(Where where, const Counts& counts) {
  finish_phase("the barrier at " + to_string(where), counts);
  for (std::size_t& number : phase_) ++number;
  clock_.fill(0);
}

void Trace::pass(const std::string& what, Where where, int thread, const Counts& counts) {
  if (!mine(thread)) return;
  const int lane = thread % 32;
  if (thread == thread_) finish_phase(what + " at " + to_string(where), counts);
  ++phase_[lane];
  clock_[lane] = 0;
}

void Trace::end(const Counts& counts, const std::vector<SharedArray>& arrays) {
  finish_phase("the end of the kernel", counts);
  for (const SharedArray& a : arrays) shared_.emplace_back(a.name, a.offset, a.bytes);
}

std::string Trace::json() const {
  std::vector<std::size_t> pcs;
  for (const Phase& phase : phases_) {
    for (const auto& [key, s] : phase.steps) {
      if (s.pc != 0) pcs.push_back(s.pc);
    }
  }
  std::ranges::sort(pcs);
  const auto repeated = std::ranges::unique(pcs);
  pcs.erase(repeated.begin(), repeated.end());
  const std::vector<std::string> lines = lines_of(pcs);
  const auto line = [&](const Step& s) {
    if (s.pc == 0) return s.where;
    return lines[std::ranges::lower_bound(pcs, s.pc) - pcs.begin()];
  };

  // A lane is null where it takes no part.
  const auto time = [](const Step& s, const Time& t) {
    const auto lanes = [&](const auto& values) {
      Json list = Json::array();
      for (int lane = 0; lane < 32; ++lane) {
        list.push_back(t.mask >> lane & 1 ? Json(values[lane]) : Json());
      }
      return list;
    };
    if (s.pc == 0) return Json{{"from", lanes(t.from)}};
    Json j{{"offsets", lanes(t.offset)}};
    if (s.shared) j["passes"] = wavefronts(t.offset, t.mask, s.bytes);
    if (!s.shared && s.bytes <= 32) j["sectors"] = sectors(t.offset, t.mask, s.bytes);
    return j;
  };
  const auto step_json = [&](const Step& s) {
    Json j{{"what", s.what}};
    if (s.pc != 0) {
      j["space"] = s.shared ? "shared" : "global";
      j["array"] = s.array;
      j["bytes"] = s.bytes;
    }
    j["line"] = line(s);
    j["times"] = *std::ranges::max_element(s.times);
    for (const Time& t : s.first) j["first"].push_back(time(s, t));
    return j;
  };
  const auto phase_json = [&](const Phase& phase) {
    Json j{{"ended_by", phase.ended_by},
           {"block",
            {{"global_requests", phase.counts.global_requests},
             {"global_sectors", phase.counts.global_sectors},
             {"shared_requests", phase.counts.shared_requests},
             {"shared_passes", phase.counts.shared_wavefronts},
             {"shuffles", phase.counts.shuffles}}},
           {"moved", Json::array()},
           {"steps", Json::array()}};
    for (const auto& [array, moved] : phase.moved) {
      j["moved"].push_back({{"space", array.first ? "shared" : "global"},
                            {"array", array.second},
                            {"read", moved.read},
                            {"written", moved.written}});
    }
    std::vector<const Step*> steps;
    for (const auto& [key, s] : phase.steps) steps.push_back(&s);
    std::ranges::stable_sort(steps, {}, &Step::order);
    for (const Step* s : steps) j["steps"].push_back(step_json(*s));
    return j;
  };

  const uint3 block = unflatten(block_, grid_), thread = unflatten(thread_, size_);
  Json j{{"kernel", kernel_},
         {"grid", triple(grid_)},
         {"threads", triple(size_)},
         {"block", {block.x, block.y, block.z}},
         {"thread", {thread.x, thread.y, thread.z}},
         {"warp", thread_ / 32},
         {"lane", thread_ % 32},
         {"shared", Json::array()},
         {"phases", Json::array()},
         {"cut", Json()}};
  for (const auto& [name, offset, bytes] : shared_) {
    j["shared"].push_back({{"array", name}, {"offset", offset}, {"bytes", bytes}});
  }
  for (const Phase& phase : phases_) j["phases"].push_back(phase_json(phase));
  if (phase_[traced_lane()] >= kPhases) {
    j["cut"] = "the first " + std::to_string(kPhases) + " phases are here, " +
               std::to_string(phase_[traced_lane()] + 1 - kPhases) + " more followed";
  }
  return j.dump();
}

}  // namespace al::emulator
