#include "common/emulator/shared_memory.hpp"

#include <cstring>

#include "common/device.cuh"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace al::emulator {

void Clocks::begin_block() {
  if (any_warp_sync) {
    synced.fill(0);
    known.fill({});
  }
  any_warp_sync = false;
  now = barrier = 1;
}

void Clocks::pass_warp_sync(int warp, unsigned mask) {
  any_warp_sync = true;
  ++now;
  // Whatever one of the lanes knew to be behind it, all of them know now; and what each of them
  // has done itself.
  std::array<std::uint32_t, 32> all{};
  for (int lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    for (int i = 0; i < 32; ++i) all[i] = std::max(all[i], known[32 * warp + lane][i]);
  }
  for (int lane = 0; lane < 32; ++lane) {
    if (mask >> lane & 1) all[lane] = now;
  }
  for (int lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    known[32 * warp + lane] = all;
    synced[32 * warp + lane] = now;
  }
}

SharedMemory::SharedMemory()
    : arena_(static_cast<std::byte*>(::operator new (kArenaBytes, std::align_val_t{128}))),
      writer_(kArenaBytes, kRedZone),
      reader_(kArenaBytes),
      write_pc_(kArenaBytes / 4),
      read_pc_(kArenaBytes / 4) {}

void SharedMemory::begin_block(bool watched) {
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(arena_.get(), kArenaBytes);
#endif
  if (watched_) std::fill_n(writer_.begin(), used_, kRedZone);
  watched_ = watched;
  arrays_.clear();
  taken_ = 0;
  used_ = kSharedAlignment;  // the first red zone
  clocks.begin_block();
}

std::byte* SharedMemory::take(const char* name, std::size_t bytes) {
  const std::size_t offset = used_;
  const std::size_t room = shared_round_up(bytes);
  taken_ += room;
  used_ += room + kSharedAlignment;
  if (taken_ > kLimit || used_ > kArenaBytes) return nullptr;
  arrays_.push_back({name, bytes, offset});
  std::byte* array = arena_.get() + offset;
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(array, bytes);
#endif
  std::memset(array, 0xff, bytes);  // a NaN in every floating-point type
  if (watched_) {
    std::fill_n(writer_.begin() + offset, bytes, 0);
    std::fill_n(reader_.begin() + offset, bytes, 0);
  }
  return array;
}

const SharedArray* SharedMemory::nearest(std::size_t offset) const {
  const SharedArray* best = nullptr;
  std::size_t best_distance = kArenaBytes;
  for (const SharedArray& array : arrays_) {
    const std::size_t end = array.offset + array.bytes;
    const std::size_t distance = offset < array.offset ? array.offset - offset
                                 : offset >= end       ? offset - end + 1
                                                       : 0;
    if (distance < best_distance) best = &array, best_distance = distance;
  }
  return best;
}

// Is what the stamp says ordered before an access that this thread makes now?
bool SharedMemory::ordered(std::uint32_t earlier, int thread) const {
  const std::uint32_t t = time(earlier), w = who(earlier);
  if (t < clocks.barrier) return true;
  if (t == kNever) return false;
  if (w == static_cast<std::uint32_t>(thread)) return true;
  if (w < 1024) return w / 32 == thread / 32u && t < clocks.known[thread][w % 32];
  return w == kLanes + thread / 32 && t < clocks.synced[thread];
}

// The quick answer that nearly every access gets: written before the last barrier, or by the
// thread itself.
inline bool SharedMemory::fine(std::uint32_t earlier, int thread) const {
  return earlier - 1 < (clocks.barrier << 12) - 1 ||
         (who(earlier) == static_cast<std::uint32_t>(thread) && time(earlier) != 0);
}

// The stamp for this thread's access beside an earlier one of the same kind, which it may join.
std::uint32_t SharedMemory::merge(std::uint32_t earlier, int thread) const {
  const std::uint32_t mine = stamp(clocks.of(thread), thread);
  if (ordered(earlier, thread)) return mine;
  if (who(earlier) == kWarps) return earlier;
  const std::uint32_t warp = thread / 32;
  const bool same_warp =
      who(earlier) < 1024 ? who(earlier) / 32 == warp : who(earlier) == kLanes + warp;
  return stamp(std::max(time(earlier), time(mine)), same_warp ? kLanes + warp : kWarps);
}

SharedMemory::Finding SharedMemory::judge(std::size_t offset, unsigned bytes, int thread,
                                          bool write, bool atomic) const {
  const auto race = [&](std::size_t at, std::uint32_t earlier, bool earlier_wrote) {
    const std::uint32_t w = who(earlier) - (time(earlier) == kNever ? kInFlight : 0);
    const auto& pcs = earlier_wrote ? write_pc_ : read_pc_;
    return Finding{time(earlier) == kNever ? Verdict::copy_in_flight : Verdict::race, at,
                   earlier_wrote, w < 1024 ? static_cast<int>(w) : -1, pcs[at / 4]};
  };
  for (std::size_t at = offset; at < offset + bytes; ++at) {
    const std::uint32_t w = writer_[at];
    if (w == kRedZone) return {Verdict::red_zone, at};
    if (w == 0 && !write) return {Verdict::unwritten, at};
    if (!ordered(w, thread) && !(atomic && (w & 1))) return race(at, w, true);
    if (write && !ordered(reader_[at], thread)) return race(at, reader_[at], false);
  }
  return {};
}

SharedMemory::Finding SharedMemory::read(std::size_t offset, unsigned bytes, int thread,
                                         std::uint32_t pc) {
  const std::uint32_t* writer = &writer_[offset];
  bool quick = fine(writer[0], thread);
  for (unsigned i = 1; i < bytes; ++i) quick &= writer[i] == writer[0];
  if (!quick) {
    const Finding finding = judge(offset, bytes, thread, false, false);
    if (finding.verdict != Verdict::fine) return finding;
  }
  std::uint32_t* reader = &reader_[offset];
  const std::uint32_t first = reader[0];
  bool uniform = true;
  for (unsigned i = 1; i < bytes; ++i) uniform &= reader[i] == first;
  if (uniform) {
    const std::uint32_t merged = merge(first, thread);
    if (merged != first) std::fill_n(reader, bytes, merged);
  } else {
    for (unsigned i = 0; i < bytes; ++i) reader[i] = merge(reader[i], thread);
  }
  for (std::size_t word = offset / 4; word < (offset + bytes + 3) / 4; ++word) read_pc_[word] = pc;
  return {};
}

void SharedMemory::enter_write(std::size_t offset, unsigned bytes, std::uint32_t stamp,
                               std::uint32_t pc) {
  std::fill_n(&writer_[offset], bytes, stamp);
  for (std::size_t word = offset / 4; word < (offset + bytes + 3) / 4; ++word) write_pc_[word] = pc;
}

SharedMemory::Finding SharedMemory::write(std::size_t offset, unsigned bytes, int thread,
                                          std::uint32_t pc, bool atomic) {
  const Finding finding = judge(offset, bytes, thread, true, atomic);
  if (finding.verdict != Verdict::fine) return finding;
  if (atomic) {  // other threads' atomics since the last barrier must not be forgotten
    for (std::size_t at = offset; at < offset + bytes; ++at) {
      enter_write(at, 1, merge(writer_[at], thread) | 1, pc);
    }
  } else {
    enter_write(offset, bytes, stamp(clocks.of(thread), thread), pc);
  }
  return {};
}

SharedMemory::Finding SharedMemory::start_copy(std::size_t offset, unsigned bytes, int thread,
                                               std::uint32_t pc) {
  const Finding finding = judge(offset, bytes, thread, true, false);
  if (finding.verdict != Verdict::fine) return finding;
  enter_write(offset, bytes, stamp(kNever, kInFlight + thread), pc);
  return {};
}

void SharedMemory::land_copy(std::size_t offset, unsigned bytes, int thread, std::uint32_t pc) {
  enter_write(offset, bytes, stamp(clocks.of(thread), thread), pc);
}

}  // namespace al::emulator
