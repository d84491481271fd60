// The emulator as the host sees it: run a grid, know the buffers, take the counts.
#pragma once

#include <vector_types.h>

#include <cstddef>
#include <cstdint>

#include "common/counts.hpp"

namespace al::emulator {

// Each can be set before the program starts by the environment variable named beside it.
struct Settings {
  std::uint64_t seed = 1;  // AL_EMULATOR_SEED: order of blocks, warps and lanes
  int threads = 0;         // AL_EMULATOR_THREADS: operating-system threads; 0: one for each core
  // AL_EMULATOR_CHECKED_BLOCKS: in launches of more blocks than this, only so many (the first, the
  // last, and others drawn by the seed) are watched access by access; 0: every block always.
  // Barriers, shuffles and global writes are watched in every block.
  int checked_blocks = 256;
  // AL_EMULATOR_GPU_FRAGMENTS=1: elements of WMMA fragments lie in the lanes as on sm_80 to sm_90,
  // not in an order that no GPU has.
  bool gpu_fragments = false;
};
Settings& settings();

// One launch as the scheduler needs it: `entry(body)` is what each CUDA thread runs.
struct Grid {
  const char* name;
  dim3 grid, block;
  std::size_t shared_bytes;
  void (*entry)(const void* body);
  const void* body;
  std::size_t body_bytes;
  bool overlaps;  // threads wait for the kernels in front, by themselves
};

// Runs every block to its end. Throws Error(wrong_result) with a report of several lines when the
// kernel does anything a GPU would punish, now or some day, and Error(usage) when the launch
// itself is not allowed (more than 1024 threads, more shared memory than a block can have).
void run_grid(const Grid& grid);

template <typename Body>
void run_grid(const char* name, dim3 grid, dim3 block, std::size_t shared_bytes, bool overlaps,
              const Body& body) {
  const auto entry = [](const void* b) { (*static_cast<const Body*>(b))(); };
  run_grid(Grid{name, grid, block, shared_bytes, entry, &body, sizeof(Body), overlaps});
}

// Called by every thread of a block through SharedArena::take: array number `index` of the block.
void* take_shared(const char* name, std::size_t index, std::size_t bytes, std::size_t alignment);

// Global memory is what has been registered; a kernel's access to any other memory is a fault.
// A new buffer counts as never written. Call these between launches only.
void register_global(void* data, std::size_t bytes, const char* name);
void unregister_global(void* data);
void forget_global(void* data);  // from now on the whole buffer counts as never written
void note_written(void* data, std::size_t bytes);  // the host has written here, in any buffer

// What has been counted since the last call, or since the start.
Counts take_counts();

}  // namespace al::emulator
