// Decoding on the CUDA cores: the keys of a head are split over blocks, a block's over its warps.
//
// A row of K is 16 to 64 pieces of 16 bytes; so many lanes share it (at most 32, two pieces each),
// and the warp's 32 lanes take several keys at once. Each group of lanes goes through its keys with
// the online softmax of chapter 04 and results of its own: nobody waits for anybody before the end,
// when groups, warps and blocks are merged by the same rule (merge.cuh).
#pragma once

#include "07_flash_decoding/merge.cuh"
#include "common/ptx/streaming_load.cuh"

namespace al::decoding {

// [snippet tile]
// ROWS: of Q that a block handles together, all with the same K and V.
template <typename T_, int D_, int ROWS_>
struct SplitTile {
  using T = T_;
  static constexpr int D = D_, ROWS = ROWS_, WARPS = 8, THREADS = WARPS * 32;
  static constexpr int VEC = 16 / sizeof(T);                 // elements in 16 bytes
  static constexpr int LANES = D / VEC < 32 ? D / VEC : 32;  // that share a key
  static constexpr int VECTORS = D / (VEC * LANES);          // of a key, for each of them
  static constexpr int ELEMENTS = VEC * VECTORS;             // likewise
  static constexpr int GROUPS = 32 / LANES;                  // keys that a warp takes at once
  // … and how often, before it computes: the loads of so many keys are on their way together.
  static constexpr int UNROLL = 4 / VECTORS;
  static constexpr int KEYS = GROUPS * UNROLL;
  static constexpr int BLOCK_KEYS = KEYS * WARPS;
  static constexpr int BLOCKS_PER_SM = ROWS == 1 ? 2 : 1;
};
// [/snippet]

// A lane's part of a row, as it came from memory, and wider.
template <typename T, int VECTORS>
struct Piece {
  uint4 vectors[VECTORS];

  __device__ __forceinline__ void load(const T* row, int lane, int lanes) {
    constexpr int VEC = 16 / sizeof(T);
#pragma unroll
    for (int v = 0; v < VECTORS; ++v) {
      vectors[v] =
          ptx::load_streaming(reinterpret_cast<const uint4*>(row + (v * lanes + lane) * VEC));
    }
  }
  // f(index of the first of four elements, those four)
  template <typename F>
  __device__ __forceinline__ void for_fours(F&& f) const {
    constexpr int VEC = 16 / sizeof(T);
#pragma unroll
    for (int v = 0; v < VECTORS; ++v) {
#pragma unroll
      for (int x = 0; x < VEC; x += 4) {
        f(v * VEC + x, load4(reinterpret_cast<const T*>(&vectors[v]) + x));
      }
    }
  }
};

// [snippet kernel]
template <typename Tile, typename T = typename Tile::T>
__global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS_PER_SM)
    decode_split(const T* Q, const T* K, const T* V, T* O, Job job) {
  constexpr int D = Tile::D, ROWS = Tile::ROWS, WARPS = Tile::WARPS;
  constexpr int UNROLL = Tile::UNROLL, ELEMENTS = Tile::ELEMENTS;
  const int warp = threadIdx.x / 32;
  const int group = threadIdx.x % 32 / Tile::LANES, lane = threadIdx.x % Tile::LANES;

  const Part part(job, ROWS);
  if (part.split >= part.splits) return;  // the sequence is shorter
  const Cache<T, D> K_rows(K, job, part), V_rows(V, job, part);
  const T* const Q_rows = Q + (std::size_t(part.head) * job.rows + part.row0) * D;  // [rows, D]

  SharedArena shared;
  auto& warps = shared.take<WarpResults<WARPS, ROWS, D>>("warps");

  // K and V [UNROLL keys]. Past the end the last key stands in, and is not used.
  Piece<T, Tile::VECTORS> K_rmem[UNROLL], V_rmem[UNROLL];
  const auto load = [&](int j0) {
#pragma unroll
    for (int u = 0; u < UNROLL; ++u) {
      const int j = min(j0 + u * Tile::GROUPS + group, part.end - 1), page = K_rows.page_of(j);
      K_rmem[u].load(K_rows.row(page, j), lane, Tile::LANES);
      V_rmem[u].load(V_rows.row(page, j), lane, Tile::LANES);
    }
  };
  // The first keys are asked for before anything is waited for, Q for instance.
  int j0 = part.begin + warp * Tile::KEYS;
  if (j0 < part.end) load(j0);

  float Q_rmem[ROWS][ELEMENTS], O_rmem[ROWS][ELEMENTS] = {}, m[ROWS], l[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    Piece<T, Tile::VECTORS> q;
    q.load(Q_rows + min(r, part.rows - 1) * D, lane, Tile::LANES);
    q.for_fours([&](int x, float4 four) { store4(&Q_rmem[r][x], four); });
    m[r] = -INFINITY, l[r] = 0;
  }

  while (j0 < part.end) {
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      const int visible = min(part.end, part.visible(job, r));
      float s[UNROLL], highest = m[r];
#pragma unroll
      for (int u = 0; u < UNROLL; ++u) {
        float dot = 0;
        K_rmem[u].for_fours([&](int x, float4 k) {
          dot += Q_rmem[r][x] * k.x + Q_rmem[r][x + 1] * k.y + Q_rmem[r][x + 2] * k.z +
                 Q_rmem[r][x + 3] * k.w;
        });
#pragma unroll
        for (int step = Tile::LANES / 2; step > 0; step /= 2) {
          dot += __shfl_xor_sync(0xffffffffu, dot, step);
        }
        s[u] = j0 + u * Tile::GROUPS + group < visible ? dot * job.scale_log2 : -INFINITY;
        highest = fmaxf(highest, s[u]);
      }
      const float correction = weight(m[r], highest);
      m[r] = highest;
      l[r] *= correction;
#pragma unroll
      for (int x = 0; x < ELEMENTS; ++x) O_rmem[r][x] *= correction;
#pragma unroll
      for (int u = 0; u < UNROLL; ++u) {
        const float p = weight(s[u], highest);
        l[r] += p;
        // What the row does not see is not multiplied, not even by 0.
        if (s[u] == -INFINITY) continue;
        V_rmem[u].for_fours([&](int x, float4 v) {
          O_rmem[r][x] += p * v.x, O_rmem[r][x + 1] += p * v.y;
          O_rmem[r][x + 2] += p * v.z, O_rmem[r][x + 3] += p * v.w;
        });
      }
    }
    j0 += part.stride;
    if (j0 < part.end) load(j0);
  }

  // Merge the warp's groups.
#pragma unroll
  for (int r = 0; r < ROWS; ++r) {
    if (r >= part.rows) break;
    float highest = m[r];
#pragma unroll
    for (int step = Tile::LANES; step < 32; step *= 2) {
      highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, step));
    }
    const float share = weight(m[r], highest);
    const auto sum = [&](float x) {
      x *= share;
#pragma unroll
      for (int step = Tile::LANES; step < 32; step *= 2) x += __shfl_xor_sync(0xffffffffu, x, step);
      return x;
    };
    l[r] = sum(l[r]);
    if (threadIdx.x % 32 == 0) warps.m[warp][r] = highest, warps.l[warp][r] = l[r];
#pragma unroll
    for (int x = 0; x < ELEMENTS; ++x) {
      const float o = sum(O_rmem[r][x]);
      const int column = (x / Tile::VEC * Tile::LANES + lane) * Tile::VEC + x % Tile::VEC;
      if (group == 0) warps.O[warp][r][column] = o;
    }
  }
  finish<T>(shared, warps, O, job, part);
}
// [/snippet]

// [snippet launch]
template <typename Tile>
void launch_split(const Problem& p, const Arguments& a, const Plan& plan, bool one_launch,
                  Stream stream) {
  using T = typename Tile::T;
  constexpr int D = Tile::D, ROWS = Tile::ROWS;
  const Job job(p, a, plan, one_launch);
  const LaunchConfig config{.name = "decode_split",
                            .grid = dim3(plan.heads * plan.row_tiles, plan.splits),
                            .block = Tile::THREADS,
                            .shared_bytes = shared_bytes<WarpResults<Tile::WARPS, ROWS, D>, bool>(),
                            .stream = stream};
  launch(decode_split<Tile>, config, static_cast<const T*>(a.q), static_cast<const T*>(a.k),
         static_cast<const T*>(a.v), static_cast<T*>(a.out), job);
  if (!one_launch && plan.splits > 1) {
    const LaunchConfig merge{.name = "merge_kernel",
                             .grid = dim3(plan.heads * plan.row_tiles),
                             .block = kMergeWarps * 32,
                             .shared_bytes = shared_bytes<WarpResults<kMergeWarps, ROWS, D>>(),
                             .stream = stream};
    launch(merge_kernel<T, ROWS, D>, merge, static_cast<T*>(a.out), job);
  }
}
// [/snippet]

}  // namespace al::decoding
