// The instructions that feed the tensor cores, as the wrappers in common/ptx call them here. The
// lanes of a warp come to them one after the other; the last one makes the scheduler do it for all.
#pragma once

#include <cstdint>

#include "common/emulator/cuda.hpp"

namespace al::emulator {

// What the 32 lanes of a warp do together: each leaves its operands and waits, and when the last
// one has come, complete(all operands, by lane) is called once.
struct Collective {
  const char* name;  // of the instruction, in reports
  void (*complete)(void* const (&operands)[32]);
};
void warp_collective(const Collective& what, void* operands, Where where);

// By value: registers whose address is taken would cost the kernel a hook at each of their uses.
template <typename T>  // of a and b: __half, __nv_bfloat16, __nv_fp8_e4m3, __nv_fp8_e5m2
float4 mma(float4 d, uint4 a, uint2 b, Where where);

template <typename T>
__forceinline__ void mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                         Where where) {
  const float4 sum = mma<T>(make_float4(d[0], d[1], d[2], d[3]), make_uint4(a[0], a[1], a[2], a[3]),
                            make_uint2(b[0], b[1]), where);
  d[0] = sum.x, d[1] = sum.y, d[2] = sum.z, d[3] = sum.w;
}

// Lane 8i + j gives row j of matrix i, for i < matrices.
uint4 ldmatrix(const void* row, int matrices, bool transposed, Where where);
void stmatrix(void* row, uint4 registers, int matrices, bool transposed, Where where);

std::uint32_t movmatrix_trans(std::uint32_t rows, Where where);

template <int MATRICES>
__forceinline__ void ldmatrix(std::uint32_t (&r)[MATRICES], const void* row, bool transposed,
                              Where where) {
  const uint4 all = ldmatrix(row, MATRICES, transposed, where);
  r[0] = all.x, r[1] = all.y;
  if constexpr (MATRICES == 4) r[2] = all.z, r[3] = all.w;
}

template <int MATRICES>
__forceinline__ void stmatrix(void* row, const std::uint32_t (&r)[MATRICES], bool transposed,
                              Where where) {
  uint4 all = make_uint4(r[0], r[1], 0, 0);
  if constexpr (MATRICES == 4) all.z = r[2], all.w = r[3];
  stmatrix(row, all, MATRICES, transposed, where);
}

}  // namespace al::emulator
