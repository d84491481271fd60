#include "common/emulator/shared_memory.hpp"

#include <cstring>

#include "common/device.cuh"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace al::emulator {

void SharedMemory::Free::operator()(std::byte* p) const {
  ::operator delete (p, std::align_val_t{kSharedArenaAlignment});
}

SharedMemory::SharedMemory()
    : arena_(static_cast<std::byte*>(
          ::operator new (kArenaBytes, std::align_val_t{kSharedArenaAlignment}))),
      writer_(kArenaBytes, Stamp::red_zone()),
      reader_(kArenaBytes),
      write_pc_(kArenaBytes / 4),
      read_pc_(kArenaBytes / 4) {}

void SharedMemory::begin_block(bool watched, int threads) {
#ifdef __SANITIZE_ADDRESS__
  __asan_poison_memory_region(arena_.get(), kArenaBytes);
#endif
  if (watched_) std::fill_n(writer_.begin(), used_, Stamp::red_zone());
  watched_ = watched;
  arrays_.clear();
  taken_ = 0;
  used_ = kSharedAlignment;  // the first red zone
  clocks.begin_block(threads);
  read_sets_.clear();
}

std::byte* SharedMemory::take(const char* name, std::size_t bytes, std::size_t alignment) {
  const std::size_t room = shared_round_up(bytes);
  const std::size_t offset = shared_round_up(used_, alignment);
  taken_ = shared_round_up(taken_, alignment) + room;
  used_ = offset + room + kSharedAlignment;
  if (taken_ > kLimit || used_ > kArenaBytes) return nullptr;
  arrays_.push_back({name, bytes, offset});
  std::byte* array = arena_.get() + offset;
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(array, bytes);
#endif
  std::memset(array, 0xff, bytes);  // a NaN in every floating-point type
  if (watched_) {
    std::fill_n(writer_.begin() + offset, bytes, Stamp{});
    std::fill_n(reader_.begin() + offset, bytes, Stamp{});
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
bool SharedMemory::ordered(Stamp earlier, int thread) const {
  if (earlier.never()) return true;
  if (earlier.is_in_flight()) return false;
  const int agent = earlier.agent();
  if (agent >= 0) return clocks.knows(thread, agent, earlier.time());
  if (earlier.time() < clocks.barrier) return true;
  return earlier.who() == Stamp::kLanes + thread / 32 && clocks.knows_warp(thread, earlier.time());
}

// The quick answer that nearly every access gets: written before the last barrier, or by the
// thread itself.
inline bool SharedMemory::quickly_fine(Stamp earlier, int thread) const {
  return earlier.bits - 1 < (clocks.barrier << 12) - 1 ||
         (earlier.is_thread() && !earlier.never() &&
          earlier.who() == static_cast<std::uint32_t>(thread));
}

// The stamp for this thread's access beside an earlier one of the same kind, which it may join.
Stamp SharedMemory::merge(Stamp earlier, int thread) const {
  const Stamp mine = Stamp::by(thread, clocks.of(thread));
  if (ordered(earlier, thread)) return mine;
  if (earlier.who() == Stamp::kWarps) return earlier;
  const std::uint32_t warp = thread / 32;
  const bool same_warp = earlier.who() < kMaxThreads ? earlier.who() / 32 == warp
                                                     : earlier.who() == Stamp::kLanes + warp;
  return Stamp::by(same_warp ? Stamp::kLanes + warp : Stamp::kWarps,
                   std::max(earlier.time(), mine.time()));
}

inline Stamp SharedMemory::add_reader(Stamp readers, int thread) {
  if (!clocks.exact()) return merge(readers, thread);
  const Stamp mine = Stamp::by(thread, clocks.of(thread));
  if (readers == mine || quickly_fine(readers, thread)) return mine;
  return read_sets_.add(readers, mine, [&](Stamp reader) {
    return reader.agent() == thread || ordered(reader, thread);
  });
}

SharedMemory::Finding SharedMemory::race(std::size_t at, Stamp earlier, bool earlier_wrote) const {
  const auto& pcs = earlier_wrote ? write_pc_ : read_pc_;
  return {earlier.is_in_flight() ? Verdict::in_flight : Verdict::race, at, earlier_wrote,
          earlier.agent(), pcs[at / 4]};
}

SharedMemory::Finding SharedMemory::judge(std::size_t offset, unsigned bytes, int thread,
                                          bool write, bool atomic) const {
  Stamp last_writer{}, last_reader{};  // found fine
  for (std::size_t at = offset; at < offset + bytes; ++at) {
    const Stamp w = writer_[at];
    if (w.is_red_zone()) return {Verdict::red_zone, at};
    if (w.never() && !write) return {Verdict::unwritten, at};
    if (w != last_writer && !ordered(w, thread) && !(atomic && w.atomic())) {
      return race(at, w, true);
    }
    last_writer = w;
    const Stamp r = reader_[at];
    if (!write || r == last_reader) continue;
    Finding found;
    const bool fine = read_sets_.all(r, [&](Stamp reader) {
      if (ordered(reader, thread)) return true;
      found = race(at, reader, false);
      return false;
    });
    if (!fine) return found;
    last_reader = r;
  }
  return {};
}

SharedMemory::Finding SharedMemory::read(std::size_t offset, unsigned bytes, int thread,
                                         std::uint32_t pc) {
  const Stamp* writer = &writer_[offset];
  bool quick = quickly_fine(writer[0], thread);
  for (unsigned i = 1; i < bytes; ++i) quick &= writer[i] == writer[0];
  if (!quick) {
    const Finding finding = judge(offset, bytes, thread, false, false);
    if (finding.verdict != Verdict::fine) return finding;
  }
  Stamp* reader = &reader_[offset];
  const Stamp first = reader[0];
  bool uniform = true;
  for (unsigned i = 1; i < bytes; ++i) uniform &= reader[i] == first;
  if (uniform) {
    const Stamp merged = add_reader(first, thread);
    if (merged != first) std::fill_n(reader, bytes, merged);
  } else {
    for (unsigned i = 0; i < bytes; ++i) reader[i] = add_reader(reader[i], thread);
  }
  note_pc(read_pc_, offset, bytes, pc);
  return {};
}

void SharedMemory::note_pc(std::vector<std::uint32_t>& pcs, std::size_t offset, unsigned bytes,
                           std::uint32_t pc) {
  for (std::size_t word = offset / 4; word < (offset + bytes + 3) / 4; ++word) pcs[word] = pc;
}

void SharedMemory::enter_write(std::size_t offset, unsigned bytes, Stamp stamp, std::uint32_t pc) {
  std::fill_n(&writer_[offset], bytes, stamp);
  note_pc(write_pc_, offset, bytes, pc);
}

SharedMemory::Finding SharedMemory::write(std::size_t offset, unsigned bytes, int thread,
                                          std::uint32_t pc, bool atomic) {
  const Finding finding = judge(offset, bytes, thread, true, atomic);
  if (finding.verdict != Verdict::fine) return finding;
  if (!atomic) {
    enter_write(offset, bytes, Stamp::by(thread, clocks.of(thread)), pc);
    return {};
  }
  // Other threads' atomics since the last barrier must not be forgotten.
  for (std::size_t at = offset; at < offset + bytes; ++at) {
    enter_write(at, 1, {merge(writer_[at], thread).bits | 1}, pc);
  }
  return {};
}

SharedMemory::Finding SharedMemory::start_write(std::size_t offset, unsigned bytes, int thread,
                                                int agent, std::uint32_t pc) {
  const Finding finding = judge(offset, bytes, thread, true, false);
  if (finding.verdict != Verdict::fine) return finding;
  enter_write(offset, bytes, Stamp::in_flight(agent), pc);
  return {};
}

void SharedMemory::land_write(std::size_t offset, unsigned bytes, int agent, Time time,
                              std::uint32_t pc) {
  enter_write(offset, bytes,
              agent < kMaxThreads ? Stamp::by(agent, time) : Stamp::by_hardware(agent, time), pc);
}

SharedMemory::Finding SharedMemory::hardware_read(std::size_t offset, unsigned bytes,
                                                  std::span<const int> threads, int agent,
                                                  Time time, std::uint32_t pc) {
  const Stamp mine = Stamp::by_hardware(agent, time);
  Stamp last_writer{}, last_reader{}, merged{};
  for (std::size_t at = offset; at < offset + bytes; ++at) {
    const Stamp w = writer_[at];
    if (w != last_writer || at == offset) {
      for (const int thread : threads) {
        const Finding finding = judge(at, 1, thread, false, false);
        if (finding.verdict != Verdict::fine) return finding;
      }
      if (w.is_thread() && w.agent() >= 0 && !clocks.fenced(w.agent(), w.time())) {
        return {Verdict::unfenced, at, true, w.agent(), write_pc_[at / 4]};
      }
      last_writer = w;
    }
    if (reader_[at] != last_reader || at == offset) {
      last_reader = reader_[at];
      merged = last_reader.never() ? mine : read_sets_.add(last_reader, mine, [&](Stamp reader) {
        return reader.agent() == agent || ordered(reader, threads[0]);
      });
    }
    reader_[at] = merged;
  }
  note_pc(read_pc_, offset, bytes, pc);
  return {};
}

}  // namespace al::emulator
