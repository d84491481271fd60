// ldmatrix and stmatrix: a warp moves 8 × 8 matrices of 16-bit elements between shared memory and
// the fragments that mma.sync takes. All 32 lanes call together. Lane 8i + j gives the address of
// row j of matrix i: 16 bytes, on a multiple of 16. Register i of lane l then holds row l / 4 of
// matrix i, elements 2(l % 4) and + 1; with `trans`, of the transposed matrix. _x2 looks at the
// addresses of lanes 0 … 15 only. 8-bit elements travel in pairs, so only without `trans`.
// Each matrix is a pass of shared memory when its 8 rows lie in different banks.
// PTX ISA, "Warp-level matrix load instruction: ldmatrix".
#pragma once

#include <cstdint>

#include "common/device.cuh"
#include "common/ptx/shared_address.cuh"
#ifdef AL_EMULATOR
#include "common/emulator/tensor_core.hpp"
#endif

namespace al {

#ifdef AL_EMULATOR

__forceinline__ void ldmatrix_x4(std::uint32_t (&r)[4], const void* smem,
                                 emulator::Where where = emulator::Where::current()) {
  emulator::ldmatrix(r, smem, false, where);
}
__forceinline__ void ldmatrix_x2(std::uint32_t (&r)[2], const void* smem,
                                 emulator::Where where = emulator::Where::current()) {
  emulator::ldmatrix(r, smem, false, where);
}
__forceinline__ void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* smem,
                                       emulator::Where where = emulator::Where::current()) {
  emulator::ldmatrix(r, smem, true, where);
}
__forceinline__ void ldmatrix_x2_trans(std::uint32_t (&r)[2], const void* smem,
                                       emulator::Where where = emulator::Where::current()) {
  emulator::ldmatrix(r, smem, true, where);
}
__forceinline__ void stmatrix_x4(void* smem, const std::uint32_t (&r)[4],
                                 emulator::Where where = emulator::Where::current()) {
  emulator::stmatrix(smem, r, false, where);
}
__forceinline__ void stmatrix_x2(void* smem, const std::uint32_t (&r)[2],
                                 emulator::Where where = emulator::Where::current()) {
  emulator::stmatrix(smem, r, false, where);
}
__forceinline__ void stmatrix_x4_trans(void* smem, const std::uint32_t (&r)[4],
                                       emulator::Where where = emulator::Where::current()) {
  emulator::stmatrix(smem, r, true, where);
}

#else

__device__ __forceinline__ void ldmatrix_x4(std::uint32_t (&r)[4], const void* smem) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(smem))
               : "memory");
}

__device__ __forceinline__ void ldmatrix_x2(std::uint32_t (&r)[2], const void* smem) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(smem))
               : "memory");
}

__device__ __forceinline__ void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* smem) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(smem))
               : "memory");
}

__device__ __forceinline__ void ldmatrix_x2_trans(std::uint32_t (&r)[2], const void* smem) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(smem))
               : "memory");
}

// stmatrix needs sm_90; elsewhere it traps.
__device__ __forceinline__ void stmatrix_x4(void* smem, const std::uint32_t (&r)[4]) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1,%2,%3,%4};"
               :
               : "r"(shared_address(smem)), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
               : "memory");
#else
  __trap();
#endif
}

__device__ __forceinline__ void stmatrix_x2(void* smem, const std::uint32_t (&r)[2]) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile("stmatrix.sync.aligned.m8n8.x2.shared.b16 [%0], {%1,%2};"
               :
               : "r"(shared_address(smem)), "r"(r[0]), "r"(r[1])
               : "memory");
#else
  __trap();
#endif
}

__device__ __forceinline__ void stmatrix_x4_trans(void* smem, const std::uint32_t (&r)[4]) {
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1,%2,%3,%4};"
               :
               : "r"(shared_address(smem)), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
               : "memory");
#else
  __trap();
#endif
}

#endif

}  // namespace al
