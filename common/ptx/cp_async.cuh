// cp.async: copies from global to shared memory that bypass the registers and go on while the
// thread computes. A thread starts copies, closes them into a group, and waits until all but its
// newest N groups have arrived; what other threads copied needs a barrier on top.
//
// The addresses must be multiples of the size. `source_bytes` less than the size: only so many are
// read, the rest is filled with zeros; with 0 the source is not touched.
//
// Before sm_80 there is no such instruction: the copy is done on the spot, so a kernel is correct
// everywhere and gains nothing there.
#pragma once

#include "common/device.cuh"

namespace al {

#if !defined(AL_EMULATOR) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
// The plain copy in vectors of one type: 16 or 8 bytes.
template <typename Vector>
__device__ __forceinline__ void copy_now(void* smem, const void* gmem, int source_bytes) {
  Vector value{};
  if (source_bytes == sizeof(Vector)) {
    value = *static_cast<const Vector*>(gmem);
  } else {
    for (int i = 0; i < source_bytes; ++i) {
      reinterpret_cast<char*>(&value)[i] = static_cast<const char*>(gmem)[i];
    }
  }
  *static_cast<Vector*>(smem) = value;
}
#endif

__device__ __forceinline__ void cp_async_16(void* smem, const void* gmem, int source_bytes = 16) {
#if defined(AL_EMULATOR)
  emulator::cp_async(smem, gmem, 16, source_bytes);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  copy_now<uint4>(smem, gmem, source_bytes);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                   static_cast<unsigned>(__cvta_generic_to_shared(smem))),
               "l"(gmem), "r"(source_bytes)
               : "memory");
#endif
}

__device__ __forceinline__ void cp_async_8(void* smem, const void* gmem, int source_bytes = 8) {
#if defined(AL_EMULATOR)
  emulator::cp_async(smem, gmem, 8, source_bytes);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  copy_now<uint2>(smem, gmem, source_bytes);
#else
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(
                   static_cast<unsigned>(__cvta_generic_to_shared(smem))),
               "l"(gmem), "r"(source_bytes)
               : "memory");
#endif
}

// Closes the copies started since the last call into a group; an empty group counts too.
__device__ __forceinline__ void cp_async_commit() {
#if defined(AL_EMULATOR)
  emulator::cp_async_commit();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most the NEWER most recent groups of this thread are still on their way.
template <int NEWER>
__device__ __forceinline__ void cp_async_wait() {
#if defined(AL_EMULATOR)
  emulator::cp_async_wait(NEWER);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(NEWER) : "memory");
#endif
}

}  // namespace al
