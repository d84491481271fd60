// From 16 bits to 8: one factor a head, found or given, and each element to the nearest number of
// the format.
//
//   X [B, H, N, D] in fp16 or bf16  →  X8 [B, H, N, D] in e4m3 or e5m2, scale [H]
//   x ≈ scale · x8,  scale = max |x| of the head / largest number of the format
//
// V comes out as tiles instead (below), also where it is 8 bits to begin with.
#pragma once

#include <cstdint>

#include "06_fp8_prefetch_v3/fragments.cuh"
#include "common/kernel_shape.cuh"
#include "common/launch.cuh"
#include "common/ptx/dependent_launch.cuh"
#include "common/vector.cuh"

namespace al::fp8 {

__host__ __device__ constexpr float largest_of(DType format) {
  return format == DType::e4m3 ? 448.0f : 57344.0f;
}

// Four numbers in a register, the first in the lowest bits.
__device__ __forceinline__ std::uint32_t pack(DType format, float4 x) {
  return format == DType::e4m3 ? pack<__nv_fp8_e4m3>(x.x, x.y, x.z, x.w)
                               : pack<__nv_fp8_e5m2>(x.x, x.y, x.z, x.w);
}

// x / s for many x, to the last bit and in three instructions instead of a dozen: x · (1/s) is off
// by its rounding, and the remainder, which an FMA has exactly, puts that right (Markstein 1990).
// 1/s and the remainder must be normal numbers: other factors are divided by.
class Divisor {
 public:
  __device__ explicit Divisor(float s)
      : s_(s), reciprocal_(1 / s), usual_(s > 0x1p-100f && s < 0x1p100f) {}
  __device__ __forceinline__ float4 operator()(float4 x) const {
    return make_float4(of(x.x), of(x.y), of(x.z), of(x.w));
  }

 private:
  __device__ __forceinline__ float of(float x) const {
    if (!usual_) return x / s_;
    const float near = x * reciprocal_;
    return fabsf(near) == INFINITY ? near : fmaf(fmaf(-near, s_, x), reciprocal_, near);
  }

  float s_, reciprocal_;
  bool usual_;
};

// A block takes so many rows of a head, a chunk: enough of them to fill the GPU even with few
// heads.
inline constexpr int kChunkRows = 64, kQuantiseThreads = 256;
__host__ __device__ constexpr int chunks_of(int N) { return ceil_div(N, kChunkRows); }

// A row of D is read by LANES lanes, 16 or all 32 of a warp: four neighbours each, twice for D 256.
template <int D>
struct RowLanes {
  static constexpr int LANES = D < 128 ? D / 4 : 32, VECTORS = D / 4 / LANES;
};

// [snippet rotate]
// A row times the Hadamard matrix of order D, over √D: entries ±1, rows orthogonal. Q and K rotated
// alike have the same products, for (H q) · (H k) = q · k, but no element stands out any more: a
// spike of 20 becomes 20 / √D everywhere. log2 D rounds of sums and differences; first those within
// a lane, then those between lanes.
template <int D, int VECTORS>
__device__ __forceinline__ void rotate(float (&x)[4 * VECTORS]) {
  constexpr int LANES = RowLanes<D>::LANES;
#pragma unroll
  for (int bit = 1; bit < 4 * VECTORS; bit *= 2) {
#pragma unroll
    for (int i = 0; i < 4 * VECTORS; ++i) {
      if (i & bit) continue;
      const float a = x[i], b = x[i + bit];
      x[i] = a + b;
      x[i + bit] = a - b;
    }
  }
#pragma unroll
  for (int bit = 1; bit < LANES; bit *= 2) {
#pragma unroll
    for (float& mine : x) {
      const float other = __shfl_xor_sync(0xffffffff, mine, bit);
      mine = (threadIdx.x & bit) ? other - mine : mine + other;
    }
  }
#pragma unroll
  for (float& mine : x) mine *= rsqrtf(float(D));
}
// [/snippet]

// Calls f(at, x) for each four elements of this block's chunk, rows first … last - 1 of X [rows,
// D]; `at` is where they are. Each thread asks for several rows before it looks at the first, or it
// would wait for memory more than work. All lanes of a warp go round together.
template <int D, bool ROTATE, typename T, typename F>
__device__ __forceinline__ void for_each_vector(const T* X, int first, int last, F&& f) {
  constexpr int LANES = RowLanes<D>::LANES, VECTORS = RowLanes<D>::VECTORS;
  constexpr int ROWS_AT_ONCE = kQuantiseThreads / LANES, IN_FLIGHT = 4 / VECTORS;
  const int lane = threadIdx.x % LANES;
  for (int row0 = first; row0 < last; row0 += ROWS_AT_ONCE * IN_FLIGHT) {
    float x[IN_FLIGHT][4 * VECTORS] = {};
#pragma unroll
    for (int i = 0; i < IN_FLIGHT; ++i) {
      const int row = row0 + i * ROWS_AT_ONCE + threadIdx.x / LANES;
      if (row >= last) continue;
#pragma unroll
      for (int v = 0; v < VECTORS; ++v) {
        const float4 four = load4(X + std::size_t(row) * D + 4 * (lane + LANES * v));
        x[i][4 * v] = four.x, x[i][4 * v + 1] = four.y;
        x[i][4 * v + 2] = four.z, x[i][4 * v + 3] = four.w;
      }
    }
#pragma unroll
    for (int i = 0; i < IN_FLIGHT; ++i) {
      if constexpr (ROTATE) rotate<D, VECTORS>(x[i]);
      const int row = row0 + i * ROWS_AT_ONCE + threadIdx.x / LANES;
      if (row >= last) continue;
#pragma unroll
      for (int v = 0; v < VECTORS; ++v) {
        f(std::size_t(row) * D + 4 * (lane + LANES * v),
          make_float4(x[i][4 * v], x[i][4 * v + 1], x[i][4 * v + 2], x[i][4 * v + 3]));
      }
    }
  }
}

// maxima[(h · B + b) · chunks + chunk] = max |x| of that chunk: a head's maxima lie together.
template <typename From, int D, bool ROTATE>
__global__ void largest_of_chunks(const From* X, float* maxima, int batch, int heads, int N) {
  const int bh = blockIdx.x / chunks_of(N), chunk = blockIdx.x % chunks_of(N);
  const int first = chunk * kChunkRows, last = min(N, first + kChunkRows);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  SharedArena shared;
  auto& of_warp = shared.take<float[kQuantiseThreads / 32]>("of_warp");

  float largest = 0;
  for_each_vector<D, ROTATE>(X + std::size_t(bh) * N * D, first, last, [&](std::size_t, float4 x) {
    largest = fmaxf(largest, fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w))));
  });
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, lanes));
  }
  if (lane == 0) of_warp[warp] = largest;
  __syncthreads();  // all warps have written before the first one reads
  if (threadIdx.x == 0) {
    for (const float of_other : of_warp) largest = fmaxf(largest, of_other);
    maxima[(std::size_t(bh % heads) * batch + bh / heads) * chunks_of(N) + chunk] = largest;
  }
}

// scale[h] from the head's maxima, or from all heads' with one factor for the whole tensor. A head
// of zeros keeps them whatever the factor, and one with an infinity is past help: 1.
static __global__ void scales_of_heads(const float* maxima, float* scale, int heads,
                                       int maxima_per_head, float format_largest, bool per_head) {
  const int first = per_head ? blockIdx.x * maxima_per_head : 0;
  const int count = per_head ? maxima_per_head : heads * maxima_per_head;
  float largest = 0;
  for (int i = threadIdx.x; i < count; i += 32) largest = fmaxf(largest, maxima[first + i]);
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, lanes));
  }
  const bool usable = largest > 0 && largest < INFINITY;
  if (threadIdx.x == 0) scale[blockIdx.x] = usable ? largest / format_largest : 1.0f;
}

// [snippet quantise]
template <typename From, int D, bool ROTATE>
__global__ void quantise(const From* X, std::uint8_t* X8, const float* scale, DType format,
                         int heads, int N) {
  const int bh = blockIdx.x / chunks_of(N), chunk = blockIdx.x % chunks_of(N);
  const int first = chunk * kChunkRows, last = min(N, first + kChunkRows);
  const Divisor by_scale(scale[bh % heads]);
  std::uint8_t* X8_head = X8 + std::size_t(bh) * N * D;  // [N, D]
  for_each_vector<D, ROTATE>(
      X + std::size_t(bh) * N * D, first, last, [&](std::size_t at, float4 x) {
        *reinterpret_cast<std::uint32_t*>(X8_head + at) = pack(format, by_scale(x));
      });
}
// [/snippet]

// [snippet tiles]
// V [B·Hkv, Nkv, D]  →  V_tiles [B·Hkv, keys / 16, D, 16], `keys` a multiple of 16, zeros from Nkv
// on
//
// Tensor cores read the second operand along the axis that is summed over, and for P V that is the
// keys: V must lie with keys side by side, which no copy of rows can give. Tiles of 16 keys x 8
// columns, 128 bytes in one piece, are what an instruction reads at once, and any run of keys is
// one piece of memory. Within 16 keys the order is that of round_P: at 4t … 4t + 3 the keys
// 2t, 2t + 1, 2t + 8, 2t + 9.
//
// A thread takes four columns of 16 keys.
template <typename From>
__global__ void tile_V(const From* V, std::uint8_t* V_tiles, const float* scale, DType format,
                       int heads, int Nkv, int D, int groups, int total) {
  launch_dependents();  // the kernel that will read the tiles
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= total) return;
  const int d = at % (D / 4) * 4, group = at / (D / 4) % groups, bh = at / (D / 4) / groups;
  const From* V_columns = V + (std::size_t(bh) * Nkv * D + d);  // [Nkv, D], from column d on

  const Divisor by_scale(sizeof(From) == 1 ? 1 : scale[bh % heads]);
  std::uint32_t four_columns[16];  // of each key, a byte each
#pragma unroll
  for (int key = 0; key < 16; ++key) {
    const int j = group * 16 + key;
    four_columns[key] = 0;
    if (j >= Nkv) continue;
    const From* v = V_columns + std::size_t(j) * D;
    if constexpr (sizeof(From) == 1) {
      four_columns[key] = *reinterpret_cast<const std::uint32_t*>(v);
    } else {
      four_columns[key] = pack(format, by_scale(load4(v)));
    }
  }

  uint4* tile = reinterpret_cast<uint4*>(V_tiles + (std::size_t(bh) * groups + group) * D * 16);
#pragma unroll
  for (int column = 0; column < 4; ++column) {
    std::uint32_t out[4];
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      const auto byte = [&](int key) { return four_columns[key] >> (8 * column) & 0xff; };
      out[t] = byte(2 * t) | byte(2 * t + 1) << 8 | byte(2 * t + 8) << 16 | byte(2 * t + 9) << 24;
    }
    tile[d + column] = make_uint4(out[0], out[1], out[2], out[3]);
  }
}
// [/snippet]

}  // namespace al::fp8
