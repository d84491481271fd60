// What a warp does with scores between two matrix products, while they are in registers. The same
// for mma.sync (prefetch.cuh) and wgmma (hopper.cuh), because both leave their result in the same
// places: with g = lane / 4 and t = lane % 4, a warp that owns 16 rows holds of S
//
//   S_rmem[n][0], [1]   row g,      keys 8n + 2t, 8n + 2t + 1
//   S_rmem[n][2], [3]   row g + 8,  the same keys
//
// and of O the same with columns in place of keys. So a thread has two rows, r = 0 and 1, and
// shares each with the three other lanes of its quad.
#pragma once

#include <cstdint>

#include "common/device.cuh"
#include "common/problem.hpp"
#include "common/ptx/exp2.cuh"

namespace al::fp8 {

inline constexpr float kLog2e = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

// [snippet shift]
// P lies in [0, 1], where e4m3 would lose all below 2^-10. Times 2^8 its largest element is 256, of
// the 448 that e4m3 has room for, and what is lost is below 2^-18. A power of two, and the largest
// element stays a power of two: it is not rounded at all.
template <typename T>
inline constexpr float kShift = std::is_same_v<T, __nv_fp8_e4m3>   ? 8
                                : std::is_same_v<T, __nv_fp8_e5m2> ? 15
                                                                   : 0;
// [/snippet]

// Keys from `visible[r]` on are hidden from row r; `visible` counts from this tile's first key.
template <int BLOCKS>
__device__ __forceinline__ void hide_keys(float (&S_rmem)[BLOCKS][4], int visible0, int visible1) {
  const int t2 = threadIdx.x % 4 * 2;
#pragma unroll
  for (int n = 0; n < BLOCKS; ++n) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      if (8 * n + e >= visible0 - t2) S_rmem[n][e] = -INFINITY;
      if (8 * n + e >= visible1 - t2) S_rmem[n][2 + e] = -INFINITY;
    }
  }
}

// op over the four lanes that share a row.
template <typename Op>
__device__ __forceinline__ float quad_reduce(float x, Op op) {
  x = op(x, __shfl_xor_sync(0xffffffff, x, 1));
  return op(x, __shfl_xor_sync(0xffffffff, x, 2));
}

// A row's maximum (of unscaled scores) and its sum of weights, each lane's own part of it.
struct Row {
  float m = -INFINITY, l = 0;
};

// The largest score of each of a lane's two rows, and of `row` what was there before.
template <int BLOCKS>
__device__ __forceinline__ void largest_of(const float (&S_rmem)[BLOCKS][4], const Row (&row)[2],
                                           float (&m)[2]) {
  float most[4];  // four chains, so that none waits for its own last step
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    most[i] = row[i / 2].m;
#pragma unroll
    for (int n = 0; n < BLOCKS; ++n) most[i] = fmaxf(most[i], S_rmem[n][i]);
  }
  m[0] = fmaxf(most[0], most[1]);
  m[1] = fmaxf(most[2], most[3]);
}

// [snippet bits]
// The same in half the instructions. Numbers from 0 on have the order of their bits read as an
// integer, and Hopper has an instruction for the largest of three integers. Who is below 0 lies
// below all of those; only if nothing reaches 0, which is rare, floats must be compared.
template <int BLOCKS>
__device__ __forceinline__ void largest_of_by_bits(const float (&S_rmem)[BLOCKS][4],
                                                   const Row (&row)[2], float (&m)[2]) {
  int most[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) most[i] = __float_as_int(row[i / 2].m);
#pragma unroll
  for (int n = 0; n < BLOCKS; ++n) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      int& chain = most[2 * r + n % 2];
      chain =
          max(max(chain, __float_as_int(S_rmem[n][2 * r])), __float_as_int(S_rmem[n][2 * r + 1]));
    }
  }
  const int bits0 = max(most[0], most[1]), bits1 = max(most[2], most[3]);
  m[0] = __int_as_float(bits0);
  m[1] = __int_as_float(bits1);
  if (bits0 < 0 || bits1 < 0) largest_of(S_rmem, row, m);
}
// [/snippet]

// [snippet softmax]
// A step of the online softmax, first half: S becomes P = 2^(c · (s - m) + shift). `alpha` is what
// the old terms shrink by. True if some row's maximum moved; else alpha is 1.
//
// c = scale · log2 e · the scales of Q and K, all in one factor that costs nothing, for an FMA has
// it for free. It must be positive: the largest score must be the largest weight's.
// BY_BITS: of two ways to the maximum, the second.
template <bool BY_BITS = false, int BLOCKS>
__device__ __forceinline__ bool make_weights(float (&S_rmem)[BLOCKS][4], Row (&row)[2],
                                             float (&alpha)[2], float c, float shift) {
  float largest[2];
  if constexpr (BY_BITS) {
    largest_of_by_bits(S_rmem, row, largest);
  } else {
    largest_of(S_rmem, row, largest);
  }
  bool moved = false;
  float offset[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float m = quad_reduce(largest[r], [](float a, float b) { return fmaxf(a, b); });
    const bool up = m > row[r].m;
    alpha[r] = up ? fast_exp2((row[r].m - m) * c) : 1.0f;
    row[r].m = m;
    moved |= up;
    // A row that has seen nothing but -inf: 2^-inf is 0 where 2^(-inf + inf) would be NaN.
    offset[r] = m == -INFINITY ? 0.0f : shift - m * c;
  }
#pragma unroll
  for (int n = 0; n < BLOCKS; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) S_rmem[n][i] = fast_exp2(S_rmem[n][i] * c + offset[i / 2]);
  }
  return moved;
}

// Second half: l goes up by P.
template <int BLOCKS>
__device__ __forceinline__ void add_weights(const float (&P_rmem)[BLOCKS][4], Row (&row)[2],
                                            const float (&alpha)[2]) {
  float sum[4] = {};
#pragma unroll
  for (int n = 0; n < BLOCKS; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] += P_rmem[n][i];
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) row[r].l = row[r].l * alpha[r] + (sum[2 * r] + sum[2 * r + 1]);
}
// [/snippet]

// O *= alpha, by rows, if it is `needed`: once the rows have seen some keys their maxima seldom
// move, and alpha is 1.
template <int BLOCKS>
__device__ __forceinline__ void rescale(float (&O_rmem)[BLOCKS][4], const float (&alpha)[2],
                                        bool needed) {
  if (!needed) return;
#pragma unroll
  for (int n = 0; n < BLOCKS; ++n) {
    O_rmem[n][0] *= alpha[0];
    O_rmem[n][1] *= alpha[0];
    O_rmem[n][2] *= alpha[1];
    O_rmem[n][3] *= alpha[1];
  }
}

// Four or two weights in a register, the first in the lowest bits.
template <typename T>
__device__ __forceinline__ std::uint32_t pack(float a, float b, float c, float d) {
  if constexpr (std::is_same_v<T, __nv_fp8_e4m3>) {
    return __nv_fp8x4_e4m3(make_float4(a, b, c, d)).__x;
  } else {
    return __nv_fp8x4_e5m2(make_float4(a, b, c, d)).__x;
  }
}
template <typename T>
__device__ __forceinline__ std::uint32_t pack(float a, float b) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 two = __floats2half2_rn(a, b);
    return __half_as_ushort(two.x) | std::uint32_t{__half_as_ushort(two.y)} << 16;
  } else {
    const __nv_bfloat162 two = __floats2bfloat162_rn(a, b);
    return __bfloat16_as_ushort(two.x) | std::uint32_t{__bfloat16_as_ushort(two.y)} << 16;
  }
}

// [snippet round]
// P in T, as operand a of the second product: no lane needs anything from another. In 16 bits the
// instruction wants of row g the keys 2t, 2t + 1 and 2t + 8, 2t + 9 of 16, and those are here. In 8
// bits it wants four keys side by side, 4t … 4t + 3, which are not. But a sum does not care in what
// order it is added up: we give it 2t, 2t + 1, 2t + 8, 2t + 9 all the same, and V's keys have been
// laid in that order (quantise.cuh).
template <typename T, int BLOCKS, int STEPS>
__device__ __forceinline__ void round_P(std::uint32_t (&P_rmem)[STEPS][4],
                                        const float (&S_rmem)[BLOCKS][4]) {
  constexpr int N = BLOCKS / STEPS;  // blocks of 8 keys in a step: 4 in 8 bits, 2 in 16
#pragma unroll
  for (int k = 0; k < STEPS; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int r = i % 2, n = k * N + i / 2 * (N / 2);
      if constexpr (sizeof(T) == 1) {
        P_rmem[k][i] = pack<T>(S_rmem[n][2 * r], S_rmem[n][2 * r + 1],  //
                               S_rmem[n + 1][2 * r], S_rmem[n + 1][2 * r + 1]);
      } else {
        P_rmem[k][i] = pack<T>(S_rmem[n][2 * r], S_rmem[n][2 * r + 1]);
      }
    }
  }
}
// [/snippet]

// Divides by l, applies V's scale and writes rows row0 and row0 + 8 of a head's O [Nq, D] and LSE
// [Nq], which begin at row `head` of the whole. A lane's pairs of columns are exchanged within its
// quad, so that it writes 16 bytes at once.
template <int BLOCKS>
__device__ __forceinline__ void write_rows(void* O, DType out_dtype, float* LSE, std::size_t head,
                                           const float (&O_rmem)[BLOCKS][4], const Row (&row)[2],
                                           int row0, int Nq, float c, float v_scale, float shift) {
  constexpr int D = 8 * BLOCKS;
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int i = row0 + 8 * r;
    const float l = quad_reduce(row[r].l, [](float a, float b) { return a + b; });
    const float factor = l == 0 ? 0.0f : v_scale / l;
    if (LSE != nullptr && t == 0 && i < Nq) {
      LSE[head + i] = l == 0 ? -INFINITY : (row[r].m * c - shift) * kLn2 + __logf(l);
    }
    uint4* O_row = reinterpret_cast<uint4*>(static_cast<std::uint16_t*>(O) + (head + i) * D);
#pragma unroll
    for (int n = 0; n < BLOCKS; n += 4) {
      std::uint32_t x[4];  // x[b]: columns 2t, 2t + 1 of block n + b
#pragma unroll
      for (int b = 0; b < 4; ++b) {
        const float left = O_rmem[n + b][2 * r] * factor, right = O_rmem[n + b][2 * r + 1] * factor;
        x[b] =
            out_dtype == DType::fp16 ? pack<__half>(left, right) : pack<__nv_bfloat16>(left, right);
      }
      // A 4 x 4 transposition in two rounds: lanes and registers swap bit 0, then bit 1.
#pragma unroll
      for (int bit = 1; bit <= 2; bit *= 2) {
        const bool upper = t & bit;
#pragma unroll
        for (int b = 0; b < 4; ++b) {
          if (b & bit) continue;
          const std::uint32_t got = __shfl_xor_sync(0xffffffff, upper ? x[b] : x[b + bit], bit);
          (upper ? x[b] : x[b + bit]) = got;
        }
      }
      if (i < Nq) O_row[n + t] = make_uint4(x[0], x[1], x[2], x[3]);  // block n + t
    }
  }
}

}  // namespace al::fp8
