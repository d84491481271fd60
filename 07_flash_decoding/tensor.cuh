// Decoding on the tensor cores, straight from memory into registers.
//
// One query row is a matrix with one row, and to multiply it on the tensor cores is waste: they
// compute eight. But the waste is free, for memory is what we wait for, and in return a warp needs
// a fifth of the instructions; and rows that share K and V (a group of heads, several queries) come
// at no cost at all. Everything is transposed, so that the wide side of mma.sync, 16, goes along
// the keys and the narrow one, 8, along the rows of Q:
//
//   Sᵀ [16 keys, 8 rows] += K [16 keys, 16 d] Qᵀ [16 d, 8 rows]
//   Oᵀ [16 d, 8 rows]    += Vᵀ [16 d, 16 keys] Pᵀ [16 keys, 8 rows]
//
// mma.sync wants every operand scattered over the lanes in a way of its own (common/ptx/mma.cuh).
// But which column of K is "column 3" is nobody's business as long as Q agrees; the same with the
// rows of Vᵀ. So each lane loads 16 neighbouring bytes, and they are given the numbers that put
// them where they are. With g = lane / 4, t = lane % 4:
//
//   K: lane (g, t) loads of keys g and g + 8 the t-th piece of 16 bytes of each 64
//   V: lane (g, t) loads of keys 2t, 2t + 1, 2t + 8, 2t + 9 the g-th piece of 16 bytes of each 128
//
// Nothing goes through shared memory, and no warp waits for another one before the end.
#pragma once

#include <algorithm>
#include <type_traits>

#include "07_flash_decoding/merge.cuh"
#include "common/ptx/bulk_copy.cuh"
#include "common/ptx/dependent_launch.cuh"
#include "common/ptx/mma.cuh"
#include "common/ptx/movmatrix.cuh"
#include "common/ptx/streaming_load.cuh"

namespace al::decoding {

// [snippet tile]
// T: of Q and O, and what is multiplied; KV: of K and V. A block has an SM for itself, or half of
// one where rows of K are so short that few warps have enough on their way.
template <typename T_, typename KV_, int D_, int WARPS_ = D_ * sizeof(KV_) < 128 ? 4 : 8>
struct TensorTile {
  using T = T_;
  using KV = KV_;
  static constexpr int D = D_, ROWS = 8;  // of Q
  static constexpr int WARPS = WARPS_, THREADS = WARPS * 32, BLOCKS_PER_SM = 8 / WARPS;
  static constexpr int K_VEC = 16 / sizeof(KV);    // elements a lane loads at once
  static constexpr int K_LOADS = D / (4 * K_VEC);  // of a key: 4 lanes share it
  static constexpr int V_VEC = K_VEC < D / 8 ? K_VEC : D / 8;
  static constexpr int V_LOADS = D / (8 * V_VEC);         // 8 lanes share it
  static constexpr int V_WORDS = V_VEC * sizeof(KV) / 4;  // registers of one
  // Groups of 16 keys that a warp loads at once: 8 KB of K and V, 32 + 32 registers (D = 256 in 16
  // bits: twice that).
  static constexpr int GROUPS = K_LOADS < 4 ? 4 / K_LOADS : 1;
  static constexpr int KEYS = 16 * GROUPS;
  static constexpr int BLOCK_KEYS = WARPS * KEYS;
  static constexpr int D_TILES = D / 16;
};
// [/snippet]

template <int WORDS>
__device__ __forceinline__ void load_words(std::uint32_t (&to)[WORDS], const void* from,
                                           bool there) {
  if constexpr (WORDS == 4) {
    const uint4 x = there ? ptx::load_streaming(static_cast<const uint4*>(from)) : uint4{};
    to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
  } else {
    const uint2 x = there ? ptx::load_streaming(static_cast<const uint2*>(from)) : uint2{};
    to[0] = x.x, to[1] = x.y;
  }
}

// Two 8-bit numbers as two 16-bit ones, exactly.
__device__ __forceinline__ std::uint32_t widen2(std::uint32_t pair) {
  const __half2_raw wide =
      __nv_cvt_fp8x2_to_halfraw2(static_cast<__nv_fp8x2_storage_t>(pair), __NV_E4M3);
  return wide.x | std::uint32_t{wide.y} << 16;
}

template <typename T>
__device__ __forceinline__ std::uint32_t pack2(float low, float high) {
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 pair = __floats2half2_rn(low, high);
    return reinterpret_cast<const std::uint32_t&>(pair);
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const std::uint32_t&>(pair);
  }
}

// [snippet operands]
// Elements 4j … 4j + 3 of what a lane loaded of a key, as two registers of pairs.
template <typename KV>
__device__ __forceinline__ uint2 four_of_key(const std::uint32_t (&words)[4], int j) {
  if constexpr (sizeof(KV) == 2) {
    return {words[2 * j], words[2 * j + 1]};
  } else {
    return {widen2(words[j] & 0xffff), widen2(words[j] >> 16)};
  }
}

// Elements 2e and 2e + 1 of what a lane loaded of two keys: a register for each element, with that
// of the first key in its lower half. Bytes 0 … 3 are the first key's, 4 … 7 the second's.
template <typename KV, int WORDS>
__device__ __forceinline__ uint2 two_of_keys(const std::uint32_t (&first)[WORDS],
                                             const std::uint32_t (&second)[WORDS], int e) {
  if constexpr (sizeof(KV) == 2) {
    return {__byte_perm(first[e], second[e], 0x5410), __byte_perm(first[e], second[e], 0x7632)};
  } else {
    const std::uint32_t pairs =
        __byte_perm(first[e / 2], second[e / 2], e % 2 == 0 ? 0x5140 : 0x7362);
    return {widen2(pairs & 0xffff), widen2(pairs >> 16)};
  }
}
// [/snippet]

// The beginning of a kernel that may start while the one in front of it still runs. That one may be
// writing Q, keys, lengths or the page table, so nothing is read before it has ended. But to have
// the block's first keys brought into L2 is not to read them: whoever writes them meanwhile writes
// into L2 as well. So memory goes on working while the kernel in front merges and ends. Not more
// than a quarter of the block's keys: what comes twice through L2 comes later.
// [snippet begin_early]
template <typename Tile, typename KV = typename Tile::KV>
__device__ __forceinline__ void begin_early(const KV* K, const KV* V, const Job& job) {
  constexpr int D = Tile::D, KEYS = Tile::BLOCK_KEYS, BYTES = KEYS * D * sizeof(KV);  // of a tile
  constexpr int MOST = 96 * 1024 / Tile::BLOCKS_PER_SM / BYTES;                       // tiles
  launch_dependents();
  if (threadIdx.x < 2 && !job.page_table) {  // where the pages are may not be known yet
    const int head = blockIdx.x / job.row_tiles;
    const KV* const rows = (threadIdx.x == 0 ? K : V) + std::int64_t{head} * job.Nkv * D;
    const int tiles = min(MOST, max(1, job.Nkv / (4 * job.splits * KEYS)));
    for (int tile = blockIdx.y, i = 0; i < tiles; tile += job.splits, ++i) {
      const int keys = min(KEYS, job.Nkv - tile * KEYS);
      if (keys > 0) bulk_prefetch_L2(rows + tile * KEYS * D, keys * D * sizeof(KV));
    }
  }
  wait_for_kernels_in_front();
}
// [/snippet]

template <typename Tile, typename T = typename Tile::T, typename KV = typename Tile::KV>
__global__ void __launch_bounds__(Tile::THREADS, Tile::BLOCKS_PER_SM)
    decode_tensor(const T* Q, const KV* K, const KV* V, T* O, Job job) {
  constexpr int D = Tile::D, WARPS = Tile::WARPS;
  constexpr int GROUPS = Tile::GROUPS, K_LOADS = Tile::K_LOADS, V_LOADS = Tile::V_LOADS;
  const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;

  if (job.overlaps) begin_early<Tile>(K, V, job);
  const Part part(job, Tile::ROWS);
  if (part.split >= part.splits) return;  // the sequence is shorter
  const Cache<KV, D> K_rows(K, job, part), V_rows(V, job, part);
  const T* const Q_rows = Q + (std::size_t(part.head) * job.rows + part.row0) * D;  // [rows, D]

  SharedArena shared;
  auto& warps = shared.take<WarpResults<WARPS, Tile::ROWS, D>>("warps");

  std::uint32_t K_rmem[GROUPS][2][K_LOADS][4];
  std::uint32_t V_rmem[GROUPS][4][V_LOADS][Tile::V_WORDS];
  std::uint32_t Q_rmem[Tile::D_TILES][2];
  float O_rmem[Tile::D_TILES][4] = {};
  // Of rows 2t and 2t + 1; l of this lane's keys only.
  float m[2] = {-INFINITY, -INFINITY}, l[2] = {};
  int page[GROUPS], next_page[GROUPS];  // of the keys in hand, and of those that come next

  const auto look_up = [&](int(&pages)[GROUPS], int j0) {
#pragma unroll
    for (int n = 0; n < GROUPS; ++n) {
      pages[n] = j0 + 16 * n < part.end ? K_rows.page_of(j0 + 16 * n) : 0;
    }
  };
  // Keys from `end` on are not touched: zeros.
  const auto load_K = [&](const int(&pages)[GROUPS], int j0, int end) {
#pragma unroll
    for (int n = 0; n < GROUPS; ++n) {
      const KV* const rows = K_rows.row(pages[n], j0 + 16 * n);
#pragma unroll
      for (int c = 0; c < K_LOADS; ++c) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          load_words(K_rmem[n][h][c], rows + (g + 8 * h) * D + (4 * c + t) * Tile::K_VEC,
                     j0 + 16 * n + g + 8 * h < end);
        }
      }
    }
  };
  const auto load_V = [&](const int(&pages)[GROUPS], int j0, int end) {
#pragma unroll
    for (int n = 0; n < GROUPS; ++n) {
      const KV* const rows = V_rows.row(pages[n], j0 + 16 * n);
#pragma unroll
      for (int h = 0; h < 4; ++h) {
        const int key = 2 * t + h % 2 + h / 2 * 8;
#pragma unroll
        for (int c = 0; c < V_LOADS; ++c) {
          load_words(V_rmem[n][h][c], rows + key * D + (8 * c + g) * Tile::V_VEC,
                     j0 + 16 * n + key < end);
        }
      }
    }
  };

  // [snippet scores]
  // S_rmem[…][0 … 3] are keys g, g, g + 8, g + 8 of the group in rows 2t, 2t + 1, 2t, 2t + 1.
  float S_rmem[GROUPS][4];
  const auto multiply_K = [&] {
#pragma unroll
    for (int n = 0; n < GROUPS; ++n) {
#pragma unroll
      for (float& s : S_rmem[n]) s = 0;
#pragma unroll
      for (int d = 0; d < Tile::D_TILES; ++d) {
        constexpr int TILES = Tile::K_VEC / 4;  // in what a lane loads at once
        const uint2 key = four_of_key<KV>(K_rmem[n][0][d / TILES], d % TILES);
        const uint2 key_8 = four_of_key<KV>(K_rmem[n][1][d / TILES], d % TILES);
        const std::uint32_t a[4] = {key.x, key_8.x, key.y, key_8.y};
        mma_m16n8k16<T>(S_rmem[n], a, Q_rmem[d]);
      }
    }
  };
  // [/snippet]

  // [snippet softmax]
  // The online softmax of rows 2t and 2t + 1, and P as the next product wants it: transposed.
  std::uint32_t P_rmem[GROUPS][2];
  const float scale = job.scale_log2 * part.k_scale;
  const auto softmax = [&](int j0, bool ragged) {
    float corrections[2];
#pragma unroll
    for (int x = 0; x < 2; ++x) {
      const int visible = ragged ? min(part.end, part.visible(job, 2 * t + x)) : 0;
      float highest = m[x];
#pragma unroll
      for (int n = 0; n < GROUPS; ++n) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float& s = S_rmem[n][2 * h + x];
          s *= scale;
          if (ragged && j0 + 16 * n + 8 * h + g >= visible) s = -INFINITY;
          highest = fmaxf(highest, s);
        }
      }
#pragma unroll
      for (int step = 4; step < 32; step *= 2) {  // over g
        highest = fmaxf(highest, __shfl_xor_sync(0xffffffffu, highest, step));
      }
      const float shift = highest == -INFINITY ? 0.0f : highest;
      corrections[x] = fast_exp2(m[x] - shift);
      m[x] = highest;
      l[x] *= corrections[x];
#pragma unroll
      for (int n = 0; n < GROUPS; ++n) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          float& s = S_rmem[n][2 * h + x];
          s = fast_exp2(s - shift);
          l[x] += s;
        }
      }
    }
#pragma unroll
    for (int n = 0; n < GROUPS; ++n) {
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        P_rmem[n][h] = movmatrix_trans(pack2<T>(S_rmem[n][2 * h], S_rmem[n][2 * h + 1]));
      }
    }
#pragma unroll
    for (int d = 0; d < Tile::D_TILES; ++d) {
#pragma unroll
      for (int i = 0; i < 4; ++i) O_rmem[d][i] *= corrections[i % 2];
    }
  };
  // [/snippet]

  // [snippet output]
  // Oᵀ += Vᵀ Pᵀ, of the rows for which taken(row) is true.
  const auto multiply_V = [&](auto taken) {
#pragma unroll
    for (int n = 0; n < GROUPS; ++n) {
#pragma unroll
      for (int d = 0; d < Tile::D_TILES; ++d) {
        constexpr int TILES = Tile::V_VEC / 2;
        const int c = d / TILES, e = d % TILES;
        const uint2 low = two_of_keys<KV>(V_rmem[n][0][c], V_rmem[n][1][c], e);
        const uint2 high = two_of_keys<KV>(V_rmem[n][2][c], V_rmem[n][3][c], e);
        const std::uint32_t a[4] = {low.x, low.y, high.x, high.y};
        float sum[4] = {O_rmem[d][0], O_rmem[d][1], O_rmem[d][2], O_rmem[d][3]};
        mma_m16n8k16<T>(sum, a, P_rmem[n]);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (taken(2 * t + i % 2)) O_rmem[d][i] = sum[i];
        }
      }
    }
  };
  // [/snippet]

  // The first loads are on their way before anything else is done. Keys up to `whole` are seen by
  // all rows.
  const int whole = min(part.end, job.causal ? part.length - job.Nq + 1 : part.length);
  int j0 = part.begin + warp * Tile::KEYS;
  look_up(page, j0);
  look_up(next_page, j0 + part.stride);
  if (j0 + Tile::KEYS <= whole) load_K(page, j0, INT32_MAX);

#pragma unroll
  for (int d = 0; d < Tile::D_TILES; ++d) {
    constexpr int TILES = Tile::K_VEC / 4;
    const int column = (4 * (d / TILES) + t) * Tile::K_VEC + d % TILES * 4;
    const uint2 four =
        g < part.rows ? *reinterpret_cast<const uint2*>(Q_rows + g * D + column) : uint2{};
    Q_rmem[d][0] = four.x;
    Q_rmem[d][1] = four.y;
  }

  // [snippet loop]
  for (; j0 + Tile::KEYS <= whole; j0 += part.stride) {
    load_V(page, j0, INT32_MAX);  // comes while the scores are computed
    multiply_K();
    const int next = j0 + part.stride;
    if (next + Tile::KEYS <= whole) load_K(next_page, next, INT32_MAX);  // … while these are used
#pragma unroll
    for (int n = 0; n < GROUPS; ++n) page[n] = next_page[n];
    look_up(next_page, next + part.stride);
    softmax(j0, false);
    multiply_V([](int) { return true; });
  }
  // [/snippet]

  // [snippet ragged]
  // Where some rows see less than others, or keys end: V must be zero where a row does not see it,
  // for the product 0 · NaN would be NaN; so each query gets its own, and takes its own rows of the
  // product.
#pragma unroll 1
  for (; j0 < part.end; j0 += part.stride) {
    look_up(page, j0);
    load_K(page, j0, part.end);
    multiply_K();
    softmax(j0, true);
#pragma unroll 1
    for (int i = 0; i < (job.causal ? job.Nq : 1); ++i) {
      load_V(page, j0, job.causal ? min(part.end, i + 1 + part.length - job.Nq) : part.end);
      multiply_V([&](int r) { return !job.causal || (part.row0 + r) % job.Nq == i; });
    }
  }
  // [/snippet]

#pragma unroll
  for (int x = 0; x < 2; ++x) {
    const int row = 2 * t + x;
#pragma unroll
    for (int step = 4; step < 32; step *= 2) l[x] += __shfl_xor_sync(0xffffffffu, l[x], step);
    if (row >= part.rows) continue;
    if (g == 0) {
      warps.m[warp][row] = m[x];
      warps.l[warp][row] = l[x];
    }
#pragma unroll
    for (int d = 0; d < Tile::D_TILES; ++d) {
      constexpr int TILES = Tile::V_VEC / 2;
      const int column = (8 * (d / TILES) + g) * Tile::V_VEC + d % TILES * 2;
      *reinterpret_cast<float2*>(&warps.O[warp][row][column]) =
          make_float2(O_rmem[d][x], O_rmem[d][2 + x]);
    }
  }
  finish<T>(shared, warps, O, job, part);
}

// [snippet launch]
template <typename Tile>
void launch_tensor(const Problem& p, const Arguments& a, const Plan& plan, bool overlaps,
                   Stream stream) {
  using T = typename Tile::T;
  using KV = typename Tile::KV;
  std::size_t shared = shared_bytes<WarpResults<Tile::WARPS, Tile::ROWS, Tile::D>, bool>();
  // A block of the next kernel must not find room beside this one's, or it begins a whole kernel
  // too early. Where the registers of 8 warps do not see to that, shared memory does.
  if (overlaps && Tile::BLOCKS_PER_SM > 1) {
    shared = std::max(shared, device().shared_per_block / (Tile::BLOCKS_PER_SM + 1) + 1024);
  }
  const LaunchConfig config{.name = "decode_tensor",
                            .grid = dim3(plan.heads * plan.row_tiles, plan.splits),
                            .block = Tile::THREADS,
                            .shared_bytes = shared,
                            .stream = stream,
                            .overlaps = overlaps};
  launch(decode_tensor<Tile>, config, static_cast<const T*>(a.q), static_cast<const KV*>(a.k),
         static_cast<const KV*>(a.v), static_cast<T*>(a.out), Job(p, a, plan, true, overlaps));
}
// [/snippet]

}  // namespace al::decoding
