// What keeps a NaN or an infinity in V's masked rows out of flash_sm80's O: a question asked of
// every masked tile, and a slow way round for the block that must answer yes.
#pragma once

#include <limits>

#include "09_cute/instructions.cuh"
#include "09_cute/tile_order.cuh"
#include "common/kernel_shape.cuh"
#include "common/ptx/fma2.cuh"

namespace al::cute_attention {

using namespace cute;
using cute::Tensor;  // not al::Tensor

// Are these values finite? 0 · x is 0 then, and NaN for an infinity or a NaN.
template <typename Engine, typename Layout>
__device__ __forceinline__ bool all_finite(const Tensor<Engine, Layout>& x) {
  using T = typename Engine::value_type;
  using T2 = std::conditional_t<std::is_same_v<T, half_t>, __half2, __nv_bfloat162>;
  const Tensor pairs = recast<const T2>(x);
  const T2 zero{};
  T2 sum{};
#pragma unroll
  for (int i = 0; i < size(pairs); ++i) sum = fma2(zero, pairs(i), sum);
  return sum.x == zero.x && sum.y == zero.y;
}

// The tensor cores multiply V also by the zeros in P of keys that a row does not see, and 0 · NaN
// is NaN. So a block that finds an infinity or a NaN in a masked tile of V does its rows once more,
// key by key: a warp a row, a lane every 32nd column. Slow, and seldom if ever run.
// [snippet by_hand]
template <typename Config, typename T>
__device__ __attribute__((noinline)) void attention_by_hand(const T* Q, const T* K, const T* V,
                                                            T* O, float* LSE, KernelShape shape,
                                                            TileOrder order) {
  constexpr int D = Config::D;
  // Found again here: nothing is kept for it through the loop.
  const auto [bh, tile_m] = order(blockIdx.x);
  const int row0 = tile_m * Config::BLOCK_M, rows = min(Config::BLOCK_M, shape.Nq - row0);
  Q += std::size_t(bh) * shape.Nq * D;
  K += std::size_t(shape.kv_head(bh)) * shape.Nkv * D;
  V += std::size_t(shape.kv_head(bh)) * shape.Nkv * D;
  O += std::size_t(bh) * shape.Nq * D;
  const int lane = threadIdx.x % 32;
  for (int i = row0 + threadIdx.x / 32; i < row0 + rows; i += Config::WARPS) {
    float m = -std::numeric_limits<float>::infinity(), l = 0, o[D / 32] = {};
    for (int j = 0; j < shape.visible_keys(i); ++j) {
      float s = 0;
      for (int d = lane; d < D; d += 32) s += float(Q[i * D + d]) * float(K[j * D + d]);
      for (int x = 16; x > 0; x /= 2) s += __shfl_xor_sync(0xffffffff, s, x);
      s *= shape.scale;
      const float m_new = fmaxf(m, s);
      const float shrink = expf(m - m_new), p = expf(s - m_new);
      for (int x = 0; x < D / 32; ++x) o[x] = o[x] * shrink + p * float(V[j * D + lane + 32 * x]);
      l = l * shrink + p;
      m = m_new;
    }
    for (int x = 0; x < D / 32; ++x) O[i * D + lane + 32 * x] = T(l == 0 ? 0 : o[x] / l);
    if (LSE && lane == 0) LSE[std::size_t(bh) * shape.Nq + i] = m + logf(l);
  }
}
// [/snippet]

}  // namespace al::cute_attention
