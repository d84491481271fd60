// sm_90's bulk copy: one thread asks for a run of bytes in shared memory, and an mbarrier counts
// them in. PTX ISA, "cp.async.bulk" and "mbarrier". On older architectures these trap: who
// launches a kernel that uses them asks device().sm first.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace al::ptx {

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900

__device__ inline std::uint32_t shared_address(const void* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

// The barrier completes a phase when `arrivals` threads have arrived and all the bytes they
// announced have landed. Followed by fence_mbarrier_init() before anyone uses it.
__device__ inline void mbarrier_init(std::uint64_t* barrier, std::uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;"
               :
               : "r"(shared_address(barrier)), "r"(arrivals)
               : "memory");
}

// Makes initialised barriers visible to the copy engine.
__device__ inline void fence_mbarrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" : : : "memory");
}

// Arrives, and announces `bytes` that a copy will bring.
__device__ inline void mbarrier_arrive_expect(std::uint64_t* barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
               :
               : "r"(shared_address(barrier)), "r"(bytes)
               : "memory");
}

// Waits until the phase of this parity (0 for the first, 1 for the second, 0 ...) is complete.
__device__ inline void mbarrier_wait(std::uint64_t* barrier, std::uint32_t parity) {
  std::uint32_t complete = 0;
  while (!complete) {
    asm volatile(
        "{\n"
        ".reg .pred complete;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 complete, [%1], %2;\n"
        "selp.u32 %0, 1, 0, complete;\n"
        "}\n"
        : "=r"(complete)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
  }
}

// Starts copying `bytes` from global to shared memory; both addresses and `bytes` are multiples
// of 16. The bytes count towards `barrier`.
__device__ inline void bulk_copy(void* to_shared, const void* from_global, std::uint32_t bytes,
                                 std::uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
      :
      : "r"(shared_address(to_shared)), "l"(__cvta_generic_to_global(from_global)), "r"(bytes),
        "r"(shared_address(barrier))
      : "memory");
}

#else

__device__ inline void mbarrier_init(std::uint64_t*, std::uint32_t) { __trap(); }
__device__ inline void fence_mbarrier_init() { __trap(); }
__device__ inline void mbarrier_arrive_expect(std::uint64_t*, std::uint32_t) { __trap(); }
__device__ inline void mbarrier_wait(std::uint64_t*, std::uint32_t) { __trap(); }
__device__ inline void bulk_copy(void*, const void*, std::uint32_t, std::uint64_t*) { __trap(); }

#endif

}  // namespace al::ptx
