// griddepcontrol, the device's half of programmatic dependent launch. A kernel launched with
// LaunchConfig::overlaps may begin before those in front of it in the stream have ended: as soon as
// each of their blocks has called launch_dependents() or ended, and wherever there is room. Until
// it has waited, it must not touch what they write. PTX ISA, "griddepcontrol". sm_90 and newer;
// older architectures launch one kernel after the other, and neither call does anything.
#pragma once

#include "common/device.cuh"

namespace al {

// The next kernel may begin. It says nothing about memory.
__device__ __forceinline__ void launch_dependents() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" : : : "memory");
#endif
}

// Waits until the kernels in front have ended and what they wrote can be seen. By every thread,
// before its first access to global memory.
__device__ __forceinline__ void wait_for_kernels_in_front() {
#ifdef AL_EMULATOR
  emulator::wait_for_kernels_in_front();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" : : : "memory");
#endif
}

}  // namespace al
