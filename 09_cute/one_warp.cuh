// Attention by single warps, written out in loops: of CuTe it takes the chapter's layouts alone, so
// it compiles in a second. For the labs: fp16, D = 64, lengths that are multiples of 32.
#pragma once

#include <cmath>

#include "09_cute/layouts.cuh"
#include "common/kernel_shape.cuh"
#include "common/launch.cuh"
#include "common/ptx/ldmatrix.cuh"
#include "common/ptx/mma.cuh"
#include "common/shared_arena.cuh"
#include "common/stage.hpp"

namespace al::cute_attention {

__device__ inline std::uint32_t pair(__half low, __half high) {
  return __half_as_ushort(low) | std::uint32_t(__half_as_ushort(high)) << 16;
}

// A block is a warp and computes 16 rows of O: a lane rows lane / 4 and that + 8, of every 8
// columns the two from lane % 4 * 2 on.
//   Q [B·Hq, Nq, D]   K, V [B·Hkv, Nkv, D]   O [B·Hq, Nq, D]   LSE [B·Hq, Nq]
template <int D, int BLOCK_N>
__global__ void one_warp(const __half* Q, const __half* K, const __half* V, __half* O, float* LSE,
                         KernelShape shape) {
  const int lane = threadIdx.x, row = lane / 4, column = lane % 4 * 2;
  const int tiles_m = shape.Nq / 16, row0 = blockIdx.x % tiles_m * 16, bh = blockIdx.x / tiles_m;
  Q += (std::size_t(bh) * shape.Nq + row0) * D;
  O += (std::size_t(bh) * shape.Nq + row0) * D;
  K += std::size_t(shape.kv_head(bh)) * shape.Nkv * D;
  V += std::size_t(shape.kv_head(bh)) * shape.Nkv * D;

  SharedArena shared;
  auto& K_smem = shared.take<__half[BLOCK_N * D]>("K_smem");
  const auto in_K = tile_to_shape(SwizzledBox<D>{}, Shape<Int<BLOCK_N>, Int<D>>{});  // (key, d)

  std::uint32_t Q_rmem[D / 16][4];
  for (int k = 0; k < D / 16; ++k) {
    for (int i = 0; i < 4; ++i) {
      const __half* q = &Q[(row + i % 2 * 8) * D + 16 * k + i / 2 * 8 + column];
      Q_rmem[k][i] = pair(q[0], q[1]);
    }
  }
  // What a lane holds of S [16, BLOCK_N], in the order mma_m16n8k16 leaves it: ((2, 2), 1, N / 8).
  const Layout<Shape<Shape<_2, _2>, _1, Int<BLOCK_N / 8>>> fragment;
  const auto by_rows = as_rows_and_columns(fragment);  // (2, (2, N / 8))
  const auto operand = as_A_operand(fragment);         // ((2, 2, 2), 1, N / 16)
  float O_rmem[D / 8][4] = {}, m[2] = {-INFINITY, -INFINITY}, l[2] = {};

  for (int j = 0; j < shape.Nkv; j += BLOCK_N) {
    __syncwarp();                                       // everyone is done reading K_smem
    for (int x = lane; x < BLOCK_N * D / 8; x += 32) {  // 16 bytes a lane
      const int key = x / (D / 8), d = x % (D / 8) * 8;
      reinterpret_cast<uint4&>(K_smem[in_K(key, d)]) =
          reinterpret_cast<const uint4&>(K[(j + key) * D + d]);
    }
    __syncwarp();  // K_smem is complete

    float S[BLOCK_N / 8 * 4] = {};
    for (int n = 0; n < BLOCK_N / 8; ++n) {
      for (int k = 0; k < D / 16; k += 2) {
        std::uint32_t K_rmem[4];
        ldmatrix_x4(K_rmem, &K_smem[in_K(8 * n + lane % 8, 16 * k + lane / 8 * 8)]);
        auto& s = reinterpret_cast<float(&)[4]>(S[4 * n]);
        mma_m16n8k16<__half>(s, Q_rmem[k], reinterpret_cast<std::uint32_t(&)[2]>(K_rmem[0]));
        mma_m16n8k16<__half>(s, Q_rmem[k + 1], reinterpret_cast<std::uint32_t(&)[2]>(K_rmem[2]));
      }
    }

    for (int r = 0; r < 2; ++r) {
      const int visible = shape.visible_keys(row0 + row + 8 * r) - j;
      float m_new = m[r];
      for (int c = 0; c < BLOCK_N / 4; ++c) {
        float& s = S[by_rows(r, c)];
        s = c / 2 * 8 + column + c % 2 < visible ? s * shape.scale : -INFINITY;
        m_new = fmaxf(m_new, s);
      }
      for (int x = 1; x < 4; x *= 2) m_new = fmaxf(m_new, __shfl_xor_sync(0xffffffff, m_new, x));
      const float shrink = m[r] == -INFINITY ? 0 : expf(m[r] - m_new);
      m[r] = m_new;
      l[r] *= shrink;
      for (int d = 0; d < D / 4; ++d) O_rmem[d / 2][2 * r + d % 2] *= shrink;
      for (int c = 0; c < BLOCK_N / 4; ++c) {
        float& s = S[by_rows(r, c)];
        s = s == -INFINITY ? 0 : expf(s - m_new);
        l[r] += s;
      }
    }

    for (int k = 0; k < BLOCK_N / 16; ++k) {
      std::uint32_t P[4];  // 16 rows x 16 keys, as the A operand
      for (int i = 0; i < 4; ++i) {
        P[i] = pair(__half(S[operand(2 * i, 0, k)]), __half(S[operand(2 * i + 1, 0, k)]));
      }
      const __half* v = &V[(j + 16 * k + column) * D + row];
      for (int d = 0; d < D / 8; ++d, v += 8) {
        const std::uint32_t V_rmem[2] = {pair(v[0], v[D]), pair(v[8 * D], v[9 * D])};
        mma_m16n8k16<__half>(O_rmem[d], P, V_rmem);
      }
    }
  }

  for (int r = 0; r < 2; ++r) {
    for (int x = 1; x < 4; x *= 2) l[r] += __shfl_xor_sync(0xffffffff, l[r], x);
    for (int d = 0; d < D / 4; ++d) {
      O[(row + 8 * r) * D + d / 2 * 8 + column + d % 2] =
          __half(l[r] == 0 ? 0 : O_rmem[d / 2][2 * r + d % 2] / l[r]);
    }
    if (LSE && lane % 4 == 0) {
      LSE[std::size_t(bh) * shape.Nq + row0 + row + 8 * r] = m[r] + logf(l[r]);
    }
  }
}

inline void launch_one_warp(const Problem& p, const Arguments& a, Stream stream) {
  constexpr int D = 64, BLOCK_N = 32;
  launch(one_warp<D, BLOCK_N>,
         {.name = "one_warp",
          .grid = dim3(p.batch * p.heads * (p.seq / 16)),
          .block = dim3(32),
          .shared_bytes = shared_bytes<__half[BLOCK_N * D]>(),
          .stream = stream},
         static_cast<const __half*>(a.q), static_cast<const __half*>(a.k),
         static_cast<const __half*>(a.v), static_cast<__half*>(a.out), a.lse, KernelShape(p));
}

}  // namespace al::cute_attention
