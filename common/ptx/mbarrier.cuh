// mbarrier: a barrier in shared memory that counts arrivals of threads and bytes of copies. It goes
// through phases: a phase is complete when `arrivals` threads have arrived and all bytes announced
// have come; the next begins at once. Who waits names the parity of the phase: 0 for the first, 1
// for the second, 0 … A fresh barrier lets a wait for parity 1 pass, as if a phase before the first
// were complete: so a producer's first wait for an "empty" stage costs nothing.
//
// A ring of stages has two of them a stage: "full" (bytes have come) and "empty" (all have read).
// PTX ISA, "Parallel synchronization and communication instructions: mbarrier". sm_90 and newer;
// elsewhere they trap: who launches a kernel that uses them asks device().sm first.
#pragma once

#include <cstdint>

#include "common/device.cuh"
#include "common/ptx/shared_address.cuh"
#ifdef AL_EMULATOR
#include "common/emulator/hopper.hpp"
#endif

namespace al {

#if defined(AL_EMULATOR)

__forceinline__ void mbarrier_init(std::uint64_t* barrier, std::uint32_t arrivals,
                                   emulator::Where where = emulator::Where::current()) {
  emulator::mbarrier_init(barrier, arrivals, where);
}
__forceinline__ void fence_mbarrier_init() { emulator::fence_mbarrier_init(); }
__forceinline__ void fence_proxy_async() { emulator::fence_proxy_async(); }
__forceinline__ void mbarrier_arrive(std::uint64_t* barrier,
                                     emulator::Where where = emulator::Where::current()) {
  emulator::mbarrier_arrive(barrier, 0, true, where);
}
__forceinline__ void mbarrier_arrive_expect_tx(std::uint64_t* barrier, std::uint32_t bytes,
                                               emulator::Where where = emulator::Where::current()) {
  emulator::mbarrier_arrive(barrier, bytes, true, where);
}
__forceinline__ void mbarrier_expect_tx(std::uint64_t* barrier, std::uint32_t bytes,
                                        emulator::Where where = emulator::Where::current()) {
  emulator::mbarrier_arrive(barrier, bytes, false, where);
}
__forceinline__ bool mbarrier_try_wait(std::uint64_t* barrier, std::uint32_t parity,
                                       emulator::Where where = emulator::Where::current()) {
  return emulator::mbarrier_try_wait(barrier, parity, where);
}
__forceinline__ void mbarrier_wait(std::uint64_t* barrier, std::uint32_t parity,
                                   emulator::Where where = emulator::Where::current()) {
  emulator::mbarrier_wait(barrier, parity, where);
}

#elif !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

// By one thread, followed by fence_mbarrier_init() of that thread and a __syncthreads().
__device__ __forceinline__ void mbarrier_init(std::uint64_t* barrier, std::uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
               :
               : "r"(shared_address(barrier)), "r"(arrivals)
               : "memory");
}

// Makes initialised barriers visible to the copy engine.
__device__ __forceinline__ void fence_mbarrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" : : : "memory");
}

// Copies and wgmma reach shared memory by another way ("proxy") than the threads' own stores. This
// makes what the thread has stored visible to them; the barrier that tells them comes after it.
__device__ __forceinline__ void fence_proxy_async() {
  asm volatile("fence.proxy.async.shared::cta;" : : : "memory");
}

__device__ __forceinline__ void mbarrier_arrive(std::uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];"
               :
               : "r"(shared_address(barrier))
               : "memory");
}

// Arrives, and announces `bytes` that copies will bring in this phase.
__device__ __forceinline__ void mbarrier_arrive_expect_tx(std::uint64_t* barrier,
                                                          std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
               :
               : "r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}

// Announces without arriving.
__device__ __forceinline__ void mbarrier_expect_tx(std::uint64_t* barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;"
               :
               : "r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}

// Is the phase of this parity complete? May wait for a while before it says no.
__device__ __forceinline__ bool mbarrier_try_wait(std::uint64_t* barrier, std::uint32_t parity) {
  std::uint32_t complete;
  asm volatile(
      "{\n"
      ".reg .pred complete;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 complete, [%1], %2;\n"
      "selp.u32 %0, 1, 0, complete;\n"
      "}\n"
      : "=r"(complete)
      : "r"(shared_address(barrier)), "r"(parity)
      : "memory");
  return complete != 0;
}

// Waits until the phase of this parity is complete. What those who arrived had written, and what
// the copies brought, is then visible.
__device__ __forceinline__ void mbarrier_wait(std::uint64_t* barrier, std::uint32_t parity) {
  while (!mbarrier_try_wait(barrier, parity)) {
  }
}

#else

__device__ inline void mbarrier_init(std::uint64_t*, std::uint32_t) { __trap(); }
__device__ inline void fence_mbarrier_init() { __trap(); }
__device__ inline void fence_proxy_async() { __trap(); }
__device__ inline void mbarrier_arrive(std::uint64_t*) { __trap(); }
__device__ inline void mbarrier_arrive_expect_tx(std::uint64_t*, std::uint32_t) { __trap(); }
__device__ inline void mbarrier_expect_tx(std::uint64_t*, std::uint32_t) { __trap(); }
__device__ inline bool mbarrier_try_wait(std::uint64_t*, std::uint32_t) {
  __trap();
  return true;
}
__device__ inline void mbarrier_wait(std::uint64_t*, std::uint32_t) { __trap(); }

#endif

}  // namespace al
