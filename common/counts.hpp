// What the emulator counts while a kernel runs; on a GPU a profiler would say it.
#pragma once

#include <cstdint>

namespace al {

// Sums over the whole launch. Memory is counted in the blocks that are checked and scaled to all
// of them; barriers and shuffles are counted everywhere.
struct Counts {
  std::int64_t global_load_bytes = 0, global_store_bytes = 0;
  std::int64_t global_requests = 0, global_sectors = 0;     // warp accesses; 32-byte sectors
  std::int64_t shared_requests = 0, shared_wavefronts = 0;  // warp accesses; passes they took
  std::int64_t barriers = 0, shuffles = 0;                  // per block; per warp
  std::int64_t blocks = 0, checked_blocks = 0;              // launched; watched access by access
};

}  // namespace al
