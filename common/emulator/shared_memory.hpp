// The shared memory of a block, and a shadow that remembers who touched each byte last.
//
// Two accesses to a byte by different threads, one of them a write, are a race unless something
// orders them: a __syncthreads between the two, a __syncwarp that both took part in, an arrival at
// an mbarrier and the end of a wait there (clocks.hpp). Each access leaves a stamp (who, when).
// The later of the two finds the stamp of the earlier, whichever ran first: so a race is found for
// certain, in every order of the threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>
#include <vector>

#include "common/emulator/clocks.hpp"
#include "common/emulator/read_sets.hpp"
#include "common/emulator/stamp.hpp"

namespace al::emulator {

struct SharedArray {
  const char* name;
  std::size_t bytes, offset;
};

class SharedMemory {
 public:
  static constexpr std::size_t kLimit = 227 << 10;  // bytes of a block on sm_90

  SharedMemory();

  // Everything is red zone until take() has been called. `watched`: keep the shadow.
  void begin_block(bool watched, int threads);
  // The next array: poisoned, with a red zone on either side.
  std::byte* take(const char* name, std::size_t bytes, std::size_t alignment);
  const std::vector<SharedArray>& arrays() const { return arrays_; }
  std::byte* address(const SharedArray& array) { return at(array.offset); }
  std::byte* at(std::size_t offset) { return arena_.get() + offset; }
  std::size_t bytes_taken() const { return taken_; }

  std::size_t offset_of(std::size_t address) const {
    return address - reinterpret_cast<std::size_t>(arena_.get());
  }
  bool contains(std::size_t address) const { return offset_of(address) < kArenaBytes; }
  // The array at this offset, or the nearest.
  const SharedArray* nearest(std::size_t offset) const;

  enum class Verdict { fine, red_zone, unwritten, in_flight, race, unfenced };
  struct Finding {
    Verdict verdict = Verdict::fine;
    std::size_t offset = 0;  // the byte it is about
    bool earlier_wrote = false;
    int earlier_agent = 0;         // a thread, or hardware; -1: several threads
    std::uint32_t earlier_pc = 0;  // the lower half of the address of the instruction
  };

  // Checks an access against the shadow and enters it there.
  Finding read(std::size_t offset, unsigned bytes, int thread, std::uint32_t pc);
  Finding write(std::size_t offset, unsigned bytes, int thread, std::uint32_t pc, bool atomic);

  // What does not happen at once. `agent`: who does it, the thread itself (cp.async) or hardware.
  // A copy on its way here: nobody may touch the bytes until it has landed.
  Finding start_write(std::size_t offset, unsigned bytes, int thread, int agent, std::uint32_t pc);
  void land_write(std::size_t offset, unsigned bytes, int agent, Time time, std::uint32_t pc);
  // Hardware reads on behalf of these threads: each of them must be ordered after the writes, and
  // what threads wrote must have been fenced.
  Finding hardware_read(std::size_t offset, unsigned bytes, std::span<const int> threads, int agent,
                        Time time, std::uint32_t pc);

  Clocks clocks;

 private:
  bool ordered(Stamp earlier, int thread) const;
  bool quickly_fine(Stamp earlier, int thread) const;
  Stamp merge(Stamp earlier, int thread) const;
  Stamp add_reader(Stamp readers, int thread);
  Finding judge(std::size_t offset, unsigned bytes, int thread, bool write, bool atomic) const;
  Finding race(std::size_t at, Stamp earlier, bool earlier_wrote) const;
  void enter_write(std::size_t offset, unsigned bytes, Stamp stamp, std::uint32_t pc);
  void note_pc(std::vector<std::uint32_t>& pcs, std::size_t offset, unsigned bytes,
               std::uint32_t pc);

  static constexpr std::size_t kArenaBytes = kLimit + (28 << 10);  // room for the red zones
  struct Free {
    void operator()(std::byte* p) const;
  };
  std::unique_ptr<std::byte, Free> arena_;
  std::vector<SharedArray> arrays_;
  std::size_t taken_ = 0;  // of the launch's bytes: without the red zones
  std::size_t used_ = 0;   // of the arena
  bool watched_ = false;
  std::vector<Stamp> writer_, reader_;  // by byte
  ReadSets read_sets_;
  std::vector<std::uint32_t> write_pc_, read_pc_;  // by word of 4 bytes: where it was done
};

}  // namespace al::emulator
