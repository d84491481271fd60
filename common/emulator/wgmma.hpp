// wgmma, as common/ptx/wgmma.cuh calls it here; an op of CuTe's with the same descriptors can too.
#pragma once

#include <cstdint>

#include "common/emulator/cuda.hpp"

namespace al::emulator {

// d [64, n] = a · bᵀ, + d where `accumulate`; d: this thread's n / 2 values, in its own memory.
// `a`: its four registers, or nullptr: a_descriptor. Majors: false is K. TA, TB: __half,
// __nv_bfloat16, __nv_fp8_e4m3 or __nv_fp8_e5m2.
template <typename TA, typename TB>
void wgmma(float* d, int n, const std::uint32_t* a, std::uint64_t a_descriptor,
           std::uint64_t b_descriptor, bool accumulate, bool a_mn_major, bool b_mn_major,
           Where where);
void wgmma_fence();
void wgmma_commit();
void wgmma_wait(std::size_t newer_groups, Where where);

}  // namespace al::emulator
