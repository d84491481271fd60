// TMA, the tensor memory accelerator of sm_90: one thread asks for a box of a tensor, and hardware
// moves it between global and shared memory, with swizzle, and with zeros where the box reaches out
// of the tensor. The tensor is described by a TensorMap (tensor_map.hpp) that the kernel takes as
// `const __grid_constant__ TensorMap`. `x` is the box's first element, 1 to 5 coordinates,
// innermost first; x[0] in bytes is a multiple of 16, and only a load may begin before the tensor
// (anything else is an illegal instruction on an H200). In shared memory a box starts on a multiple
// of 128 bytes; swizzled, of 8 rows of its span (1024 bytes for 128), if its reader is to find a
// row by its number. A store writes 16 bytes at a time: where a tensor's row ends within them, it
// writes past that end. PTX ISA, "cp.async.bulk.tensor". On older architectures these trap.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "common/device.cuh"
#include "common/ptx/bulk_copy.cuh"
#include "common/ptx/mbarrier.cuh"
#include "common/tensor_map.hpp"

namespace al {

// What the L2 cache is told of the bytes: will they be wanted again?
enum class L2Hint : std::uint64_t {
  evict_normal = 0x1000000000000000,
  evict_first = 0x12f0000000000000,
  evict_last = 0x14f0000000000000,
};

#if defined(AL_EMULATOR)

template <L2Hint HINT = L2Hint::evict_normal, int RANK>
__forceinline__ void tma_load(void* to_shared, const TensorMap& map, std::uint64_t* barrier,
                              const int (&x)[RANK],
                              emulator::Where where = emulator::Where::current()) {
  emulator::tma_load(to_shared, map, barrier, x, RANK, where);
}
template <int RANK>
__forceinline__ void tma_store(const TensorMap& map, const void* from_shared, const int (&x)[RANK],
                               emulator::Where where = emulator::Where::current()) {
  emulator::tma_store(map, from_shared, x, RANK, where);
}
__forceinline__ void tma_prefetch(const TensorMap&) {}

#elif !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

#define AL_TMA_LOAD(DIMS, COORDINATES)                                                           \
  "cp.async.bulk.tensor." DIMS                                                                   \
  ".shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {" COORDINATES \
  "}], [%2], %3;"
#define AL_TMA_STORE(DIMS, COORDINATES) \
  "cp.async.bulk.tensor." DIMS ".global.shared::cta.bulk_group [%0, {" COORDINATES "}], [%1];"

// The box's bytes, all of them, count towards `barrier`.
template <L2Hint HINT = L2Hint::evict_normal, int RANK>
__device__ __forceinline__ void tma_load(void* to_shared, const TensorMap& map,
                                         std::uint64_t* barrier, const int (&x)[RANK]) {
  const unsigned to = shared_address(to_shared), counter = shared_address(barrier);
  const auto hint = static_cast<std::uint64_t>(HINT);
  if constexpr (RANK == 1) {
    asm volatile(AL_TMA_LOAD("1d", "%4")
                 :
                 : "r"(to), "l"(&map), "r"(counter), "l"(hint), "r"(x[0])
                 : "memory");
  } else if constexpr (RANK == 2) {
    asm volatile(AL_TMA_LOAD("2d", "%4, %5")
                 :
                 : "r"(to), "l"(&map), "r"(counter), "l"(hint), "r"(x[0]), "r"(x[1])
                 : "memory");
  } else if constexpr (RANK == 3) {
    asm volatile(AL_TMA_LOAD("3d", "%4, %5, %6")
                 :
                 : "r"(to), "l"(&map), "r"(counter), "l"(hint), "r"(x[0]), "r"(x[1]), "r"(x[2])
                 : "memory");
  } else if constexpr (RANK == 4) {
    asm volatile(AL_TMA_LOAD("4d", "%4, %5, %6, %7")
                 :
                 : "r"(to), "l"(&map), "r"(counter), "l"(hint), "r"(x[0]), "r"(x[1]), "r"(x[2]),
                   "r"(x[3])
                 : "memory");
  } else {
    asm volatile(AL_TMA_LOAD("5d", "%4, %5, %6, %7, %8")
                 :
                 : "r"(to), "l"(&map), "r"(counter), "l"(hint), "r"(x[0]), "r"(x[1]), "r"(x[2]),
                   "r"(x[3]), "r"(x[4])
                 : "memory");
  }
}

// Part of the thread's open group of bulk stores: bulk_store_commit(), bulk_store_wait_read().
template <int RANK>
__device__ __forceinline__ void tma_store(const TensorMap& map, const void* from_shared,
                                          const int (&x)[RANK]) {
  const unsigned from = shared_address(from_shared);
  if constexpr (RANK == 1) {
    asm volatile(AL_TMA_STORE("1d", "%2") : : "l"(&map), "r"(from), "r"(x[0]) : "memory");
  } else if constexpr (RANK == 2) {
    asm volatile(AL_TMA_STORE("2d", "%2, %3")
                 :
                 : "l"(&map), "r"(from), "r"(x[0]), "r"(x[1])
                 : "memory");
  } else if constexpr (RANK == 3) {
    asm volatile(AL_TMA_STORE("3d", "%2, %3, %4")
                 :
                 : "l"(&map), "r"(from), "r"(x[0]), "r"(x[1]), "r"(x[2])
                 : "memory");
  } else if constexpr (RANK == 4) {
    asm volatile(AL_TMA_STORE("4d", "%2, %3, %4, %5")
                 :
                 : "l"(&map), "r"(from), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3])
                 : "memory");
  } else {
    asm volatile(AL_TMA_STORE("5d", "%2, %3, %4, %5, %6")
                 :
                 : "l"(&map), "r"(from), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3]), "r"(x[4])
                 : "memory");
  }
}

#undef AL_TMA_LOAD
#undef AL_TMA_STORE

// Brings the map itself near, before the first copy needs it.
__device__ __forceinline__ void tma_prefetch(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" : : "l"(&map) : "memory");
}

#else

template <L2Hint HINT = L2Hint::evict_normal, int RANK>
__device__ inline void tma_load(void*, const TensorMap&, std::uint64_t*, const int (&)[RANK]) {
  __trap();
}
template <int RANK>
__device__ inline void tma_store(const TensorMap&, const void*, const int (&)[RANK]) {
  __trap();
}
__device__ inline void tma_prefetch(const TensorMap&) { __trap(); }

#endif

}  // namespace al
