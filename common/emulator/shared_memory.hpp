// The shared memory of a block, and a shadow that remembers who touched each byte last.
//
// Two accesses to a byte by different threads, one of them a write, are a race unless something
// orders them: a __syncthreads between the two, or a __syncwarp that both took part in. Each
// access leaves a stamp (time, thread), where time counts the block's barriers and __syncwarps.
// The later of the two finds the stamp of the earlier, whichever ran first: so a race is found for
// certain, in every order of the threads.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

namespace al::emulator {

struct SharedArray {
  const char* name;
  std::size_t bytes, offset;
};

// Which accesses of a block are ordered before those that a thread makes now.
struct Clocks {
  std::uint32_t now = 1;
  std::uint32_t barrier = 1;  // all that happened before this time is before the last barrier
  std::array<std::uint32_t, 1024> synced{};  // time of the thread's last __syncwarp
  // [thread][lane]: what that lane of its warp did before this time is ordered.
  std::array<std::array<std::uint32_t, 32>, 1024> known{};

  bool any_warp_sync = false;

  std::uint32_t of(int thread) const { return std::max(barrier, synced[thread]); }
  void begin_block();
  void pass_barrier() { barrier = ++now; }
  void pass_warp_sync(int warp, unsigned mask);
};

class SharedMemory {
 public:
  static constexpr std::size_t kLimit = 227 << 10;  // bytes of a block on sm_90

  SharedMemory();

  // Everything is red zone until take() has been called. `watched`: keep the shadow.
  void begin_block(bool watched);
  // The next array: poisoned, with a red zone on either side.
  std::byte* take(const char* name, std::size_t bytes);
  const std::vector<SharedArray>& arrays() const { return arrays_; }
  std::byte* address(const SharedArray& array) { return arena_.get() + array.offset; }
  std::size_t bytes_taken() const { return taken_; }

  std::size_t offset_of(std::size_t address) const {
    return address - reinterpret_cast<std::size_t>(arena_.get());
  }
  bool contains(std::size_t address) const { return offset_of(address) < kArenaBytes; }
  // The array at this offset, or the nearest.
  const SharedArray* nearest(std::size_t offset) const;

  enum class Verdict { fine, red_zone, unwritten, copy_in_flight, race };
  struct Finding {
    Verdict verdict = Verdict::fine;
    std::size_t offset = 0;  // the byte it is about
    bool earlier_wrote = false;
    int earlier_thread = 0;        // -1: several threads
    std::uint32_t earlier_pc = 0;  // the lower half of the address of the instruction
  };

  // Checks an access against the shadow and enters it there.
  Finding read(std::size_t offset, unsigned bytes, int thread, std::uint32_t pc);
  Finding write(std::size_t offset, unsigned bytes, int thread, std::uint32_t pc, bool atomic);
  // A cp.async on its way here: nobody may touch the bytes until it has landed.
  Finding start_copy(std::size_t offset, unsigned bytes, int thread, std::uint32_t pc);
  void land_copy(std::size_t offset, unsigned bytes, int thread, std::uint32_t pc);

  Clocks clocks;

 private:
  // A stamp is time << 12 | who << 1 | atomic. 0: never written. `who` is a thread, or:
  static constexpr std::uint32_t kInFlight = 1024;  // + thread: a cp.async by it (writers)
  static constexpr std::uint32_t kLanes = 1024;  // + warp: several lanes of it (readers, atomics)
  static constexpr std::uint32_t kWarps = 1024 + 32;  // threads of several warps (likewise)
  static constexpr std::uint32_t kNever = 0xfffff;    // a time that nothing is ordered after
  static constexpr std::uint32_t kRedZone = 0xffffffff;

  static std::uint32_t stamp(std::uint32_t time, std::uint32_t who, bool atomic = false) {
    return time << 12 | who << 1 | static_cast<std::uint32_t>(atomic);
  }
  static std::uint32_t time(std::uint32_t stamp) { return stamp >> 12; }
  static std::uint32_t who(std::uint32_t stamp) { return stamp >> 1 & 0x7ff; }

  bool ordered(std::uint32_t earlier, int thread) const;
  std::uint32_t merge(std::uint32_t earlier, int thread) const;
  bool fine(std::uint32_t earlier, int thread) const;
  Finding judge(std::size_t offset, unsigned bytes, int thread, bool write, bool atomic) const;
  void enter_write(std::size_t offset, unsigned bytes, std::uint32_t stamp, std::uint32_t pc);

  static constexpr std::size_t kArenaBytes = kLimit + (16 << 10);  // room for the red zones
  struct Free {
    void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{128}); }
  };
  std::unique_ptr<std::byte, Free> arena_;
  std::vector<SharedArray> arrays_;
  std::size_t taken_ = 0;  // of the launch's bytes: without the red zones
  std::size_t used_ = 0;   // of the arena
  bool watched_ = false;
  std::vector<std::uint32_t> writer_, reader_;     // stamps, by byte
  std::vector<std::uint32_t> write_pc_, read_pc_;  // by word of 4 bytes: where it was done
};

}  // namespace al::emulator
