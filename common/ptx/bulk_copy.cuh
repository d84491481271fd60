// sm_90's bulk copy: one thread asks for a run of bytes, and hardware moves it between global and
// shared memory. Loads are counted by an mbarrier (mbarrier.cuh), stores by groups, as cp.async's.
// Addresses and `bytes` are multiples of 16. PTX ISA, "cp.async.bulk". On older architectures these
// trap: who launches a kernel that uses them asks device().sm first.
#pragma once

#include <cstdint>

#include "common/device.cuh"
#include "common/ptx/mbarrier.cuh"

namespace al {

#if defined(AL_EMULATOR)

__forceinline__ void bulk_copy(void* to_shared, const void* from_global, std::uint32_t bytes,
                               std::uint64_t* barrier,
                               emulator::Where where = emulator::Where::current()) {
  emulator::bulk_load(to_shared, from_global, bytes, barrier, where);
}
__forceinline__ void bulk_store(void* to_global, const void* from_shared, std::uint32_t bytes,
                                emulator::Where where = emulator::Where::current()) {
  emulator::bulk_store(to_global, from_shared, bytes, where);
}
__forceinline__ void bulk_prefetch_L2(const void* from_global, std::uint32_t bytes,
                                      emulator::Where where = emulator::Where::current()) {
  emulator::bulk_prefetch(from_global, bytes, where);
}
__forceinline__ void bulk_store_commit() { emulator::bulk_store_commit(); }
template <int NEWER>
__forceinline__ void bulk_store_wait_read(emulator::Where where = emulator::Where::current()) {
  emulator::bulk_store_wait(NEWER, where);
}
template <int NEWER>
__forceinline__ void bulk_store_wait(emulator::Where where = emulator::Where::current()) {
  emulator::bulk_store_wait(NEWER, where);
}

#elif !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

// The bytes count towards `barrier`.
__device__ __forceinline__ void bulk_copy(void* to_shared, const void* from_global,
                                          std::uint32_t bytes, std::uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
      :
      : "r"(shared_address(to_shared)), "l"(__cvta_generic_to_global(from_global)), "r"(bytes),
        "r"(shared_address(barrier))
      : "memory");
}

// Brings the bytes into L2 and nowhere else. Nobody has read them by that: who reads them later
// finds what was written until then.
__device__ __forceinline__ void bulk_prefetch_L2(const void* from_global, std::uint32_t bytes) {
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;"
               :
               : "l"(__cvta_generic_to_global(from_global)), "r"(bytes)
               : "memory");
}

// Part of the thread's open group of stores. What threads have stored in shared memory needs
// fence_proxy_async() and a barrier before.
__device__ __forceinline__ void bulk_store(void* to_global, const void* from_shared,
                                           std::uint32_t bytes) {
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;"
               :
               : "l"(__cvta_generic_to_global(to_global)), "r"(shared_address(from_shared)),
                 "r"(bytes)
               : "memory");
}

// Closes the group of the stores that this thread has started, tensor stores included.
__device__ __forceinline__ void bulk_store_commit() {
  asm volatile("cp.async.bulk.commit_group;" : : : "memory");
}

// Waits until all but the thread's NEWER newest groups have read their shared memory, which may
// then be written again. A block must not end before that.
template <int NEWER>
__device__ __forceinline__ void bulk_store_wait_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" : : "n"(NEWER) : "memory");
}

// The same, until what they wrote is visible to the thread.
template <int NEWER>
__device__ __forceinline__ void bulk_store_wait() {
  asm volatile("cp.async.bulk.wait_group %0;" : : "n"(NEWER) : "memory");
}

#else

__device__ inline void bulk_copy(void*, const void*, std::uint32_t, std::uint64_t*) { __trap(); }
__device__ inline void bulk_prefetch_L2(const void*, std::uint32_t) { __trap(); }
__device__ inline void bulk_store(void*, const void*, std::uint32_t) { __trap(); }
__device__ inline void bulk_store_commit() { __trap(); }
template <int NEWER>
__device__ inline void bulk_store_wait_read() {
  __trap();
}
template <int NEWER>
__device__ inline void bulk_store_wait() {
  __trap();
}

#endif

}  // namespace al
