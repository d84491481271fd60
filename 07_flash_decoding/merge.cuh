// Partial results of attention over disjoint sets of keys are put together by their log-sum-exps:
//
//   lse = log2 Σ_p 2^lse_p        o = Σ_p 2^(lse_p - lse) o_p
//
// in whatever order and grouping; an empty set, lse_p = -inf, changes nothing. Here twice: the
// warps of a block, and the chunks of a head.
#pragma once

#include "07_flash_decoding/job.cuh"
#include "common/launch.cuh"
#include "common/ptx/atomic_add.cuh"
#include "common/ptx/exp2.cuh"
#include "common/vector.cuh"

namespace al::decoding {

// 2^(x - reference), 0 where there is no reference either.
__device__ __forceinline__ float weight(float x, float reference) {
  return reference == -INFINITY ? 0.0f : fast_exp2(x - reference);
}

// What the warps of a block leave for each other: of each row the maximum m (to the base 2), the
// sum l, and O not yet divided by it.
template <int WARPS, int ROWS, int D>
struct WarpResults {
  float m[WARPS][ROWS], l[WARPS][ROWS];
  float O[WARPS][ROWS][D];
};

// Puts together what the first `count` warps left of each row, which becomes O and LSE; or, where
// this is but one of several chunks, a partial result.
// [snippet merge_warps]
template <typename T, int WARPS, int ROWS, int D>
__device__ __forceinline__ void merge_warps(const WarpResults<WARPS, ROWS, D>& warps, int count,
                                            bool is_final, T* O, const Job& job, const Part& part) {
  __syncthreads();  // all warps have left their results
  for (int at = threadIdx.x; at < part.rows * (D / 4); at += WARPS * 32) {
    const int r = at / (D / 4), d = at % (D / 4) * 4;
    float m = -INFINITY, l = 0;
    float4 o = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int w = 0; w < WARPS; ++w) m = w < count ? fmaxf(m, warps.m[w][r]) : m;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) {
      if (w >= count) break;
      const float share = weight(warps.m[w][r], m);
      const float4 of_warp = load4(&warps.O[w][r][d]);
      l += share * warps.l[w][r];
      o.x += share * of_warp.x, o.y += share * of_warp.y;
      o.z += share * of_warp.z, o.w += share * of_warp.w;
    }
    const float lse = l > 0 ? m + log2f(l) : -INFINITY;
    const float factor = l > 0 ? (is_final ? part.v_scale : 1.0f) / l : 0;  // no key seen: O = 0
    o = make_float4(o.x * factor, o.y * factor, o.z * factor, o.w * factor);
    if (is_final) {
      const std::size_t row = std::size_t(part.head) * job.rows + part.row0 + r;
      store4(O + row * D + d, o);
      if (d == 0 && job.LSE) job.LSE[row] = lse * kLn2;
    } else {
      const std::size_t row = part.partial_row(job, part.split) + r;
      store4(job.partials.o + row * D + d, o);
      if (d == 0) job.partials.lse[row] = lse;
    }
  }
}
// [/snippet]

// Merges the chunks of a head. It is attention over again, with chunks in place of keys: their LSEs
// are the scores, their o the values. A warp takes a row; where there are more warps than rows,
// several share one, each with a part of the chunks. The order is always the same, and with it the
// bits, whoever does it.
// [snippet merge_chunks]
template <typename T, int WARPS, int ROWS, int D>
__device__ __forceinline__ void merge_chunks(WarpResults<WARPS, ROWS, D>& warps, T* O,
                                             const Job& job, const Part& part) {
  constexpr int UNROLL = 4, ELEMENTS = D / 32;  // of a row, for each lane
  const int lane = threadIdx.x % 32;
  const int sharing = max(1, WARPS / part.rows);                         // warps that share a row
  const float* const lse = job.partials.lse + part.partial_row(job, 0);  // chunk c: [c · rows + r]
  const float* const o = job.partials.o + part.partial_row(job, 0) * D;

  for (int task = threadIdx.x / 32; task < part.rows * sharing; task += WARPS) {
    const int r = task % part.rows, mine = task / part.rows;
    float m = -INFINITY, l = 0, O_rmem[ELEMENTS] = {};
    for (int c0 = mine; c0 < part.splits; c0 += UNROLL * sharing) {
      float s[UNROLL], v[UNROLL][ELEMENTS];
#pragma unroll
      for (int u = 0; u < UNROLL; ++u) {  // all loads are on their way before any is used
        const int row = (c0 + u * sharing) * job.rows + r;
        const bool there = c0 + u * sharing < part.splits;
        s[u] = there ? lse[row] : -INFINITY;
#pragma unroll
        for (int x = 0; x < ELEMENTS; ++x) {
          v[u][x] = there ? o[std::size_t(row) * D + 32 * x + lane] : 0.0f;
        }
      }
      float highest = m;
#pragma unroll
      for (int u = 0; u < UNROLL; ++u) highest = fmaxf(highest, s[u]);
      const float correction = weight(m, highest);
      m = highest;
      l *= correction;
#pragma unroll
      for (float& x : O_rmem) x *= correction;
#pragma unroll
      for (int u = 0; u < UNROLL; ++u) {
        const float p = weight(s[u], highest);
        l += p;
#pragma unroll
        for (int x = 0; x < ELEMENTS; ++x) O_rmem[x] += p * v[u][x];
      }
    }
    if (lane == 0) warps.m[mine][r] = m, warps.l[mine][r] = l;
#pragma unroll
    for (int x = 0; x < ELEMENTS; ++x) warps.O[mine][r][32 * x + lane] = O_rmem[x];
  }
  merge_warps<T>(warps, sharing, true, O, job, part);
}
// [/snippet]

// Is this the block that finishes its head's last chunk? Each block draws a ticket when its partial
// result is written. Who draws the last one can see everybody's, and puts the counter back to zero
// for the next launch.
// [snippet last_block]
__device__ __forceinline__ bool is_last_block(bool& last, const Job& job, const Part& part) {
  __syncthreads();  // the block's partial result is written
  if (threadIdx.x == 0) {
    unsigned* const ticket = job.partials.tickets + part.head * job.row_tiles + part.tile;
    last = atomic_add_acq_rel(ticket, 1) + 1 == static_cast<unsigned>(part.splits);
    if (last) atomicExch(ticket, 0u);
  }
  __syncthreads();  // all know
  return last;
}
// [/snippet]

// The end of every kernel: the warps' results become the block's, and in one launch the last block
// merges the chunks.
template <typename T, int WARPS, int ROWS, int D>
__device__ __forceinline__ void finish(SharedArena& shared, WarpResults<WARPS, ROWS, D>& warps,
                                       T* O, const Job& job, const Part& part) {
  auto& last = shared.take<bool>("last");
  merge_warps<T>(warps, WARPS, part.splits == 1, O, job, part);
  if (job.one_launch && part.splits > 1 && is_last_block(last, job, part)) {
    merge_chunks<T>(warps, O, job, part);
  }
}

// Two launches: the second one merges, a block for each row tile of each head.
constexpr int kMergeWarps = 8;

template <typename T, int ROWS, int D>
__global__ void __launch_bounds__(kMergeWarps * 32) merge_kernel(T* O, Job job) {
  const Part part(job, ROWS);
  SharedArena shared;
  auto& warps = shared.take<WarpResults<kMergeWarps, ROWS, D>>("warps");
  if (part.splits > 1) merge_chunks<T>(warps, O, job, part);
}

}  // namespace al::decoding
