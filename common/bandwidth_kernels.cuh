// Kernels that do nothing but move bytes, as fast as they can: what the memory ceilings are
// measured with.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/device.cuh"
#include "common/ptx/bulk_copy.cuh"
#include "common/ptx/streaming_load.cuh"

namespace al {

enum class Load { plain, streaming };

template <Load LOAD>
__device__ uint4 load(const uint4* address) {
  if constexpr (LOAD == Load::streaming) return ptx::load_streaming(address);
  return *address;
}

// A block moves tiles of kBandwidthThreads * IN_FLIGHT vectors; `vectors` is a multiple of that. A
// thread asks for all of its IN_FLIGHT vectors before it uses the first, so that this many loads
// are on their way at once; neighbouring threads take neighbouring vectors.
constexpr int kBandwidthThreads = 512;

template <Load LOAD, int IN_FLIGHT>
__device__ void load_tile(uint4 (&tile)[IN_FLIGHT], const uint4* from) {
#pragma unroll
  for (int x = 0; x < IN_FLIGHT; ++x) tile[x] = load<LOAD>(from + x * kBandwidthThreads);
}

template <Load LOAD, int IN_FLIGHT>
__global__ __launch_bounds__(kBandwidthThreads) void copy_vectors(const uint4* from, uint4* to,
                                                                  std::size_t vectors) {
  constexpr std::size_t TILE = kBandwidthThreads * IN_FLIGHT;
  for (std::size_t v = blockIdx.x * TILE + threadIdx.x; v < vectors; v += gridDim.x * TILE) {
    uint4 tile[IN_FLIGHT];
    load_tile<LOAD>(tile, from + v);
#pragma unroll
    for (int x = 0; x < IN_FLIGHT; ++x) to[v + x * kBandwidthThreads] = tile[x];
  }
}

// The sum of what was read decides whether to write, so that the compiler cannot leave the reads
// out; whether it ever does is of no importance.
template <Load LOAD, int IN_FLIGHT>
__global__ __launch_bounds__(kBandwidthThreads) void read_vectors(const uint4* from, unsigned* sink,
                                                                  std::size_t vectors) {
  constexpr std::size_t TILE = kBandwidthThreads * IN_FLIGHT;
  unsigned sum = 0;
  for (std::size_t v = blockIdx.x * TILE + threadIdx.x; v < vectors; v += gridDim.x * TILE) {
    uint4 tile[IN_FLIGHT];
    load_tile<LOAD>(tile, from + v);
#pragma unroll
    for (int x = 0; x < IN_FLIGHT; ++x) sum ^= tile[x].x ^ tile[x].y ^ tile[x].z ^ tile[x].w;
  }
  if (sum == 0x9e3779b9u) *sink = sum;
}

// sm_90: one thread of each block keeps STAGES bulk copies of CHUNK bytes on their way to shared
// memory. Nobody reads what arrives. Block size 1.
template <int CHUNK, int STAGES>
__global__ void read_bulk(const unsigned char* from, std::size_t chunks) {
  SharedArena shared;
  auto& ring = shared.take<unsigned char[STAGES][CHUNK]>("ring");
  auto& arrived = shared.take<std::uint64_t[STAGES]>("arrived");
  for (int s = 0; s < STAGES; ++s) mbarrier_init(&arrived[s], 1);
  fence_mbarrier_init();

  // This block's chunks are blockIdx.x, blockIdx.x + gridDim.x, ...
  const std::size_t mine = (chunks + gridDim.x - 1 - blockIdx.x) / gridDim.x;
  // Copy i goes to stage i % STAGES, once copy i - STAGES has arrived there. The last STAGES
  // rounds only wait: a block must not end with copies into its shared memory under way.
  for (std::size_t i = 0; i < mine + STAGES; ++i) {
    const int s = static_cast<int>(i % STAGES);
    if (i >= STAGES) mbarrier_wait(&arrived[s], (i / STAGES - 1) % 2);
    if (i < mine) {
      mbarrier_arrive_expect_tx(&arrived[s], CHUNK);
      bulk_copy(ring[s], from + (blockIdx.x + i * gridDim.x) * CHUNK, CHUNK, &arrived[s]);
    }
  }
}

}  // namespace al
