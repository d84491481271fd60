// Puts a warp's loads and stores back together, and counts what they cost the memory system.
//
// The emulator runs the lanes of a warp one after the other; a GPU runs them side by side. So the
// n-th time that each lane comes past an instruction, since they last waited for each other, is
// one access of the warp.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "common/counts.hpp"

namespace al::emulator {

enum class Space : unsigned { shared, global };
enum class Direction : unsigned { load, store };

class AccessLog {
 public:
  AccessLog() : slots_(kSlots) {}

  void add(Space space, Direction direction, std::size_t pc, int lane, std::size_t address,
           unsigned bytes);
  // Counts what has been collected and forgets it. Called when a warp has waited.
  void evaluate(Counts& counts);

 private:
  static constexpr std::size_t kSlots = 1024;  // instructions between two evaluations
  static constexpr unsigned kDepth = 128;      // times round a loop; what goes beyond is scaled

  struct WarpAccess {
    std::array<std::uint32_t, 32> address;  // the lower half: enough for banks and sectors
    std::uint32_t mask = 0;
  };
  struct Slot {  // one instruction
    std::size_t pc = 0;
    Space space;
    Direction direction;
    unsigned bytes;
    std::array<std::uint32_t, 32> times;  // by lane
    std::vector<WarpAccess> accesses;
  };
  Slot& slot(std::size_t pc, Space space);

  std::vector<Slot> slots_;
  std::vector<Slot*> used_;
  Slot overflow_;  // instructions beyond kSlots are not counted
};

// The 32-byte sectors of memory that a warp's access touches.
int sectors(const std::array<std::uint32_t, 32>& address, std::uint32_t mask, unsigned bytes);
// The passes that shared memory needs for it. It has 32 banks, 4 bytes wide: words of different
// rows in one bank take a pass each; lanes that want the same word are served together. Accesses of
// 8 bytes are done in two halves of the warp, those of 16 in four quarters.
int wavefronts(const std::array<std::uint32_t, 32>& address, std::uint32_t mask, unsigned bytes);

}  // namespace al::emulator
