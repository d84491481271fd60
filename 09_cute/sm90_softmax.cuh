// The softmax of flash_sm90, in the registers that WGMMA leaves S in. A thread has shares of two
// rows, and four neighbouring lanes share a row.
#pragma once

#include <cmath>

#include "09_cute/sm90_config.cuh"
#include "common/ptx/exp2.cuh"

namespace al::cute_attention {

using namespace cute;
using cute::Tensor;  // not al::Tensor

// An accumulator ((2, 2, N/8), 1, 1) seen as the matrix it is to the softmax: the thread's two
// rows, 8 apart, and their columns (2, N/8).
template <typename Fragment>
__device__ __forceinline__ auto by_rows(Fragment& c) {
  const auto l = c.layout();
  return make_tensor(c.data(), make_layout(get<0, 1>(l), make_layout(get<0, 0>(l), get<0, 2>(l))));
}

// Rounds a fragment, two elements an instruction, in their order: what WGMMA leaves of 16 columns
// of its result is in the same lanes what it wants of 16 columns of its A operand.
template <typename From, typename To>
__device__ __forceinline__ void round_to(To& to, const From& from) {
#pragma unroll
  for (int i = 0; i < size(from); i += 2) {
    if constexpr (std::is_same_v<typename To::value_type, half_t>) {
      reinterpret_cast<__half2&>(to(i)) = __floats2half2_rn(from(i), from(i + 1));
    } else {
      reinterpret_cast<__nv_bfloat162&>(to(i)) = __floats2bfloat162_rn(from(i), from(i + 1));
    }
  }
}

// The softmax so far of a thread's two rows.
struct RowState {
  float m[2] = {-INFINITY, -INFINITY};  // largest score, before it is scaled
  float l[2] = {0, 0};                  // this thread's part of the sum of P
  bool moved[2] = {};                   // O must be multiplied …
  float rescale[2] = {0, 0};            // … by this
};

__device__ __forceinline__ float quad_max(float x) {  // over the four lanes that share a row
  x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}
__device__ __forceinline__ float quad_sum(float x) {
  x += __shfl_xor_sync(0xffffffff, x, 1);
  return x + __shfl_xor_sync(0xffffffff, x, 2);
}

// The softmax of a tile, first half: each row's maximum so far, and whether O must be rescaled for
// it: always (LAG < 0), or when that of some row of the warp has moved by more than 2^LAG, times
// scale · log2 e.
// [snippet softmax]
template <int LAG, typename Scores>
__device__ __forceinline__ void row_maxima(const Scores& S, RowState& row, float scale_log2) {
  float m[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    m[r] = fmaxf(row.m[r], S(r, 0));
#pragma unroll
    for (int c = 1; c < size<1>(S); ++c) m[r] = fmaxf(m[r], S(r, c));
    m[r] = quad_max(m[r]);
  }
  // One vote for the upper eight of the warp's rows, one for the lower eight. With LAG > 0 the
  // maximum may lag behind. P and l are then too large by the same factor, which overflows nothing.
  // But the row's largest P is no longer 1, so rounding it costs something.
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    row.moved[r] = LAG < 0 || __any_sync(0xffffffff, (m[r] - row.m[r]) * scale_log2 > LAG);
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (row.moved[r]) {
      // A row that has seen no key yet has nothing to rescale; -inf - -inf would be NaN.
      row.rescale[r] = row.m[r] == -INFINITY ? 0 : fast_exp2((row.m[r] - m[r]) * scale_log2);
      row.l[r] *= row.rescale[r];
      row.m[r] = m[r];
    }
  }
}

// Second half: S becomes P = 2^((S - m) · scale · log2 e), in place.
template <typename Scores>
__device__ __forceinline__ void exponentials(Scores& S, RowState& row, float scale_log2) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float m_scaled = row.m[r] == -INFINITY ? 0 : row.m[r] * scale_log2;
    float l_odd = 0;  // two sums, so that an addition need not wait for the one before
#pragma unroll
    for (int c = 0; c < size<1>(S); ++c) {
      S(r, c) = fast_exp2(S(r, c) * scale_log2 - m_scaled);
      (c % 2 ? l_odd : row.l[r]) += S(r, c);
    }
    row.l[r] += l_odd;
  }
}
// [/snippet]

// The tensor cores multiply V by the zeros in P of keys that a row does not see, and 0 · NaN is
// NaN. So where O is not finite it is summed up again, on the CUDA cores and of visible keys alone.
// Slow, and only where some V is NaN or infinite.
template <typename Config, typename Rows_of_O>
__device__ __forceinline__ void without_leaks(Rows_of_O& O, const RowState& rows, int row,
                                              const Work& work, const Sm90Arguments& args,
                                              float scale_log2) {
  using T = typename Config::T;
  constexpr int D = Config::D;
  const Sm90Shape& shape = args.shape;
  const int lane = threadIdx.x % 32;
  float zeros = 0;
#pragma unroll
  for (int i = 0; i < size(O); ++i) zeros += 0 * O(i);
  if (!__any_sync(0xffffffff, zeros != 0)) return;

  const std::size_t kv = std::size_t(shape.kv_head(work.bh)) * shape.Nkv * D;
  const T* K = static_cast<const T*>(args.K_data) + kv;  // [Nkv, D]
  const T* V = static_cast<const T*>(args.V_data) + kv;  // [Nkv, D]
  const float sign = shape.scale < 0 ? -1 : 1;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int i = row + 8 * r;
    const int seen = i < shape.Nq ? visible<Config>(shape, i) : 0;
    const T* q = static_cast<const T*>(args.Q_data) + shape.row_of(work.bh, i) * D;
    const float m_scaled = rows.m[r] == -INFINITY ? 0 : rows.m[r] * scale_log2;
#pragma unroll
    for (int c = 0; c < size<1>(O); ++c) O(r, c) = 0;
#pragma unroll 1
    for (int j = 0; j < shape.Nkv; ++j) {
      float s = 0;
#pragma unroll 1
      for (int d = lane % 4; d < D && j < seen; d += 4) s += float(q[d]) * float(K[j * D + d]);
      s = quad_sum(s) * sign;
      if (j >= seen) continue;
      const float p = float(T(fast_exp2(s * scale_log2 - m_scaled)));
#pragma unroll
      for (int c = 0; c < size<1>(O); ++c) {
        O(r, c) += p * float(V[j * D + c / 2 * 8 + c % 2 + lane % 4 * 2]);
      }
    }
  }
}

}  // namespace al::cute_attention
