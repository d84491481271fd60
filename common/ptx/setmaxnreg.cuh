// setmaxnreg: warpgroups hand registers to each other. All four warps of a warpgroup call it. Those
// that need few (a producer of copies) give some back; others then take more than the kernel was
// compiled with; taking waits until enough are there. The kernel must have __launch_bounds__, and
// REGISTERS be a multiple of 8 from 24 to 256. PTX ISA, "setmaxnreg". sm_90a; elsewhere nothing.
#pragma once

#include "common/device.cuh"
#ifdef AL_EMULATOR
#include "common/emulator/hopper.hpp"
#endif

namespace al {

#ifdef AL_EMULATOR

template <int REGISTERS>
__forceinline__ void setmaxnreg_dec(emulator::Where where = emulator::Where::current()) {
  emulator::set_max_registers(REGISTERS, false, where);
}
template <int REGISTERS>
__forceinline__ void setmaxnreg_inc(emulator::Where where = emulator::Where::current()) {
  emulator::set_max_registers(REGISTERS, true, where);
}

#else

template <int REGISTERS>
__device__ __forceinline__ void setmaxnreg_dec() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(REGISTERS));
#endif
}

template <int REGISTERS>
__device__ __forceinline__ void setmaxnreg_inc() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(REGISTERS));
#endif
}

#endif

}  // namespace al
