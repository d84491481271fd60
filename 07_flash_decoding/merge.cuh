// Partial results of attention over disjoint sets of keys are put together by their log-sum-exps:
//
//   lse = log2 Σ_p 2^lse_p        o = Σ_p 2^(lse_p - lse) o_p
//
// in whatever order and grouping; an empty set, lse_p = -inf, changes nothing. Here twice: the
// warps of a block, and the chunks of a head.
#pragma once

#include "07_flash_decoding/job.cuh"
#include "common/launch.cuh"
#include "common/ptx/exp2.cuh"
#include "common/vector.cuh"

namespace al::decoding {

// 2^(x - reference), 0 where there is no reference either.
__device__ __forceinline__ float weight(float x, float reference) {
  return reference == -INFINITY ? 0.0f : fast_exp2(x - reference);
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, step));
  return x;
}
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
  return x;
}

// What the warps of a block leave for each other: of each row the maximum m, the sum l, and O not
// yet divided by it.
template <int WARPS, int ROWS, int D>
struct WarpResults {
  float m[WARPS][ROWS], l[WARPS][ROWS];
  float O[WARPS][ROWS][D];
};

// What is final of row r of the tile goes to its place: columns d … d + 3 of O, and LSE.
template <typename T, int D>
__device__ __forceinline__ void store_O(T* O, const Job& job, const Part& part, int r, int d,
                                        float4 o) {
  const float v_scale = job.v_scale ? job.v_scale[part.shared_head] : 1.0f;
  const std::size_t row = std::size_t(part.head) * job.rows + part.row0 + r;
  store4(O + row * D + d, make_float4(o.x * v_scale, o.y * v_scale, o.z * v_scale, o.w * v_scale));
}
__device__ __forceinline__ void store_lse(const Job& job, const Part& part, int r, float lse) {
  if (job.LSE) job.LSE[std::size_t(part.head) * job.rows + part.row0 + r] = lse * kLn2;
}

// Merges the warps of a block. The result is O's where the head has one chunk, else a partial one.
// [snippet merge_warps]
template <typename T, int WARPS, int ROWS, int D>
__device__ __forceinline__ void merge_warps(const WarpResults<WARPS, ROWS, D>& warps, T* O,
                                            const Job& job, const Part& part) {
  __syncthreads();  // all warps have left their results
  for (int at = threadIdx.x; at < part.rows * (D / 4); at += WARPS * 32) {
    const int r = at / (D / 4), d = at % (D / 4) * 4;
    float m = -INFINITY;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) m = fmaxf(m, warps.m[w][r]);
    float l = 0;
    float4 o = make_float4(0, 0, 0, 0);
#pragma unroll
    for (int w = 0; w < WARPS; ++w) {
      const float share = weight(warps.m[w][r], m);
      const float4 of_warp = load4(&warps.O[w][r][d]);
      l += share * warps.l[w][r];
      o.x += share * of_warp.x, o.y += share * of_warp.y;
      o.z += share * of_warp.z, o.w += share * of_warp.w;
    }
    const float inverse = l > 0 ? 1 / l : 0;  // no key seen: O = 0, LSE = -inf
    o = make_float4(o.x * inverse, o.y * inverse, o.z * inverse, o.w * inverse);
    const float lse = l > 0 ? m + log2f(l) : -INFINITY;
    if (part.splits == 1) {
      store_O<T, D>(O, job, part, r, d, o);
      if (d == 0) store_lse(job, part, r, lse);
    } else {
      const std::size_t row =
          (std::size_t(part.head) * job.splits + part.split) * job.rows + part.row0 + r;
      store4(job.partials.o + row * D + d, o);
      if (d == 0) job.partials.lse[row] = lse;
    }
  }
}
// [/snippet]

// Merges the chunks of the head. A warp takes a row; where there are more warps than rows, several
// share one, each a part of the chunks. The order is always the same, and with it the bits, whoever
// does it.
// [snippet merge_chunks]
template <int WARPS, int ROWS, int D>
struct ChunkSums {
  float O[WARPS > ROWS ? WARPS : ROWS][D];
};

template <typename T, int WARPS, int ROWS, int D>
__device__ __forceinline__ void merge_chunks(ChunkSums<WARPS, ROWS, D>& sums, T* O, const Job& job,
                                             const Part& part) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int sharing = max(1, WARPS / part.rows);  // warps that share a row
  const std::size_t first = std::size_t(part.head) * job.splits * job.rows + part.row0;
  const float* const lse = job.partials.lse + first;  // of chunk c, row r: [c · rows + r]
  const float* const o = job.partials.o + first * D;  // likewise

  for (int task = warp; task < part.rows * sharing; task += WARPS) {
    const int r = task % part.rows, mine = task / part.rows;
    float m = -INFINITY, l = 0;
    for (int c = lane; c < part.splits; c += 32) m = fmaxf(m, lse[c * job.rows + r]);
    m = warp_max(m);
    for (int c = lane; c < part.splits; c += 32) l += weight(lse[c * job.rows + r], m);
    l = warp_sum(l);
    const float lse_row = l > 0 ? m + log2f(l) : -INFINITY;

    float sum[D / 32] = {};
#pragma unroll 4
    for (int c = mine; c < part.splits; c += sharing) {
      const float share = weight(lse[c * job.rows + r], lse_row);
      const float* const o_row = o + std::size_t(c * job.rows + r) * D;
#pragma unroll
      for (int x = 0; x < D / 32; ++x) {
        const float o_x = o_row[32 * x + lane];
        sum[x] += share > 0 ? share * o_x : 0.0f;  // what saw no key may be anything
      }
    }
#pragma unroll
    for (int x = 0; x < D / 32; ++x) sums.O[task][32 * x + lane] = sum[x];
    if (mine == 0 && lane == 0) store_lse(job, part, r, lse_row);
  }
  __syncthreads();  // the sums of all warps are there

  for (int at = threadIdx.x; at < part.rows * (D / 4); at += WARPS * 32) {
    const int r = at / (D / 4), d = at % (D / 4) * 4;
    float4 sum = make_float4(0, 0, 0, 0);
    for (int s = 0; s < sharing; ++s) {
      const float4 part_of_it = load4(&sums.O[s * part.rows + r][d]);
      sum.x += part_of_it.x, sum.y += part_of_it.y, sum.z += part_of_it.z, sum.w += part_of_it.w;
    }
    store_O<T, D>(O, job, part, r, d, sum);
  }
}
// [/snippet]

// Is this the block that finishes its head's last chunk? Every block draws a ticket once its
// partial result can be seen by all; who draws the last one can see everybody's, and puts the
// counter back to zero for the next launch. [snippet last_block]
__device__ __forceinline__ bool is_last_block(bool& last, const Job& job, const Part& part) {
  __syncthreads();  // the block's partial result is written
  if (threadIdx.x == 0) {
    unsigned& ticket = job.partials.tickets[part.head * job.row_tiles + part.tile];
    __threadfence();  // the whole block's, for the barrier came before
    last = atomicAdd(&ticket, 1u) + 1 == static_cast<unsigned>(part.splits);
    if (last) atomicExch(&ticket, 0u);
    __threadfence();
  }
  __syncthreads();  // all know
  return last;
}
// [/snippet]

// The end of every kernel: the warps' results become the block's, and in one launch the last block
// merges the chunks.
template <typename T, int WARPS, int ROWS, int D>
__device__ __forceinline__ void finish(SharedArena& shared,
                                       const WarpResults<WARPS, ROWS, D>& warps, T* O,
                                       const Job& job, const Part& part) {
  merge_warps<T>(warps, O, job, part);
  auto& sums = shared.take<ChunkSums<WARPS, ROWS, D>>("sums");
  auto& last = shared.take<bool>("last");
  if (job.one_launch && part.splits > 1 && is_last_block(last, job, part)) {
    merge_chunks<T>(sums, O, job, part);
  }
}

// Two launches: the second one merges, a block for each row tile of each head.
constexpr int kMergeWarps = 8;

template <typename T, int ROWS, int D>
__global__ void __launch_bounds__(kMergeWarps * 32) merge_kernel(T* O, Job job) {
  const Part part(job, ROWS, 1);
  SharedArena shared;
  auto& sums = shared.take<ChunkSums<kMergeWarps, ROWS, D>>("sums");
  if (part.splits > 1) merge_chunks<T>(sums, O, job, part);
}

}  // namespace al::decoding
