#include "common/emulator/access_log.hpp"

#include <algorithm>
#include <bit>

namespace al::emulator {

int sectors(const std::array<std::uint32_t, 32>& address, std::uint32_t mask, unsigned bytes) {
  std::array<std::uint32_t, 64> touched;
  int count = 0;
  bool sorted = true;
  for (; mask != 0; mask &= mask - 1) {
    const std::uint32_t first = address[std::countr_zero(mask)];
    for (std::uint32_t s = first / 32; s <= (first + bytes - 1) / 32; ++s) {
      if (count > 0 && touched[count - 1] == s) continue;
      sorted &= count == 0 || touched[count - 1] < s;
      touched[count++] = s;
    }
  }
  if (sorted) return count;
  std::sort(touched.begin(), touched.begin() + count);
  return static_cast<int>(std::unique(touched.begin(), touched.begin() + count) - touched.begin());
}

namespace {

// Of 16-byte accesses a pass serves a quarter of a warp, or half of it when the lanes go in pairs:
// each wants the same address as its neighbour lane ^ 1, or each the same as lane ^ 2. Measured on
// an H200 (chapter 01: 2.0 passes for such loads where others of as many bytes took 4).
bool half_goes_in_pairs(const std::array<std::uint32_t, 32>& address, std::uint32_t mask,
                        int first) {
  if ((mask >> first & 0xffff) != 0xffff) return false;
  for (const int partner : {1, 2}) {
    bool pairs = true;
    for (int lane = first; lane < first + 16; ++lane) {
      pairs &= address[lane] == address[lane ^ partner];
    }
    if (pairs) return true;
  }
  return false;
}

}  // namespace

int wavefronts(const std::array<std::uint32_t, 32>& address, std::uint32_t mask, unsigned bytes) {
  int passes = 0;
  for (int first = 0, lanes_at_once = 0; first < 32; first += lanes_at_once) {
    lanes_at_once = bytes <= 4 ? 32 : bytes == 8 ? 16 : 8;
    if (bytes == 16 && first % 16 == 0 && half_goes_in_pairs(address, mask, first)) {
      lanes_at_once = 16;
    }
    std::array<std::array<std::uint32_t, 32>, 32> wanted;  // [bank]: the words wanted of it
    std::array<int, 32> rows{};                            // [bank]: how many they are
    int worst = 0;
    for (int lane = first; lane < first + lanes_at_once; ++lane) {
      if (!(mask >> lane & 1)) continue;
      for (std::uint32_t w = address[lane] / 4; w <= (address[lane] + bytes - 1) / 4; ++w) {
        auto& words = wanted[w % 32];
        int& count = rows[w % 32];
        if (std::find(words.begin(), words.begin() + count, w) != words.begin() + count) continue;
        words[count++] = w;
        worst = std::max(worst, count);
      }
    }
    passes += worst;
  }
  return passes;
}

AccessLog::Slot& AccessLog::slot(std::size_t pc, Space space) {
  std::size_t i = (pc * 0x9e3779b97f4a7c15u >> 54) + static_cast<std::size_t>(space);
  for (std::size_t tries = 0; tries < kSlots; ++tries, ++i) {
    Slot& candidate = slots_[i % kSlots];
    if (candidate.pc == pc && candidate.space == space) return candidate;
    if (candidate.pc == 0) {
      candidate.pc = pc;
      candidate.space = space;
      candidate.times.fill(0);
      used_.push_back(&candidate);
      return candidate;
    }
  }
  return overflow_;
}

void AccessLog::add(Space space, Direction direction, std::size_t pc, int lane, std::size_t address,
                    unsigned bytes) {
  Slot& s = slot(pc, space);
  s.direction = direction;
  s.bytes = bytes;
  const std::uint32_t n = s.times[lane]++;
  if (n >= kDepth) return;
  if (n >= s.accesses.size()) s.accesses.resize(n + 1);
  s.accesses[n].address[lane] = static_cast<std::uint32_t>(address);
  s.accesses[n].mask |= 1u << lane;
}

void AccessLog::evaluate(Counts& counts) {
  for (Slot* s : used_) {
    std::int64_t lanes = 0, requests = 0, passes = 0, seen = 0;
    for (const std::uint32_t times : s->times) lanes += times;
    for (WarpAccess& access : s->accesses) {
      if (access.mask == 0) break;
      ++requests;
      seen += std::popcount(access.mask);
      passes += s->space == Space::global ? sectors(access.address, access.mask, s->bytes)
                                          : wavefronts(access.address, access.mask, s->bytes);
      access.mask = 0;
    }
    s->pc = 0;
    // The accesses beyond kDepth are taken to be like those before.
    const auto scaled = [&](std::int64_t n) { return (n * lanes + seen / 2) / seen; };
    if (s->space == Space::shared) {
      counts.shared_requests += scaled(requests);
      counts.shared_wavefronts += scaled(passes);
    } else {
      counts.global_requests += scaled(requests);
      counts.global_sectors += scaled(passes);
      (s->direction == Direction::load ? counts.global_load_bytes : counts.global_store_bytes) +=
          lanes * s->bytes;
    }
  }
  used_.clear();
}

}  // namespace al::emulator
