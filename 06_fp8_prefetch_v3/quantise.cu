// The launches of quantise.cuh.
#include "06_fp8_prefetch_v3/quantise.cuh"

#include <algorithm>

#include "06_fp8_prefetch_v3/kernels.hpp"

namespace al::fp8 {
namespace {

// Finds the factors of X [B, heads, N, D], unless they are given, and returns them.
template <typename From, int D, bool ROTATE>
const float* find_scales(const Problem& p, const Quantisation& how, const From* X, int heads, int N,
                         const float* given, float* scale, float* maxima, Stream stream) {
  if (given != nullptr) return given;
  launch(largest_of_chunks<From, D, ROTATE>,
         {.name = "largest_of_chunks",
          .grid = dim3(p.batch * heads * chunks_of(N)),
          .block = dim3(kQuantiseThreads),
          .shared_bytes = shared_bytes<float[kQuantiseThreads / 32]>(),
          .stream = stream},
         X, maxima, p.batch, heads, N);
  launch(scales_of_heads,
         {.name = "scales_of_heads", .grid = dim3(heads), .block = dim3(32), .stream = stream},
         maxima, scale, heads, p.batch * chunks_of(N), largest_of(how.format), how.per_head);
  return scale;
}

template <typename From>
void start_tile_V(const Problem& p, const From* V, const float* scale, DType format,
                  std::uint8_t* v_tiles, int key_groups, Stream stream) {
  const int total = p.batch * p.kv_heads * key_groups * (p.head_dim / 4);
  launch(
      tile_V<From>,
      {.name = "tile_V", .grid = dim3(ceil_div(total, 128)), .block = dim3(128), .stream = stream},
      V, v_tiles, scale, format, p.kv_heads, p.kv_seq, p.head_dim, key_groups, total);
}

template <typename From, int D, bool ROTATE>
void quantise_all(const Problem& p, const Quantisation& how, const Arguments& a,
                  const Tensors8& out, int key_groups, Stream stream) {
  const auto quantise_rows = [&](const void* x, int heads, int N, const float* given, float* scale,
                                 std::uint8_t* to) {
    const auto* X = static_cast<const From*>(x);
    const float* found =
        find_scales<From, D, ROTATE>(p, how, X, heads, N, given, scale, out.maxima, stream);
    launch(quantise<From, D, ROTATE>,
           {.name = "quantise",
            .grid = dim3(p.batch * heads * chunks_of(N)),
            .block = dim3(kQuantiseThreads),
            .stream = stream},
           X, to, found, how.format, heads, N);
  };
  quantise_rows(a.q, p.heads, p.seq, a.q_scale, out.q_scale, out.q);
  quantise_rows(a.k, p.kv_heads, p.kv_seq, a.k_scale, out.k_scale, out.k);
  const auto* V = static_cast<const From*>(a.v);
  const float* v_scale = find_scales<From, D, false>(p, how, V, p.kv_heads, p.kv_seq, a.v_scale,
                                                     out.v_scale, out.maxima, stream);
  start_tile_V(p, V, v_scale, how.format, out.v_tiles, key_groups, stream);
}

template <typename From, bool ROTATE>
void choose_D(const Problem& p, const Quantisation& how, const Arguments& a, const Tensors8& out,
              int key_groups, Stream stream) {
  const auto f = p.head_dim == 64    ? quantise_all<From, 64, ROTATE>
                 : p.head_dim == 128 ? quantise_all<From, 128, ROTATE>
                                     : quantise_all<From, 256, ROTATE>;
  f(p, how, a, out, key_groups, stream);
}

std::size_t rounded_up(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace

std::size_t Tensors8::bytes(const Problem& p, int key_groups) {
  const std::size_t tiles = std::size_t(p.batch) * p.kv_heads * key_groups * 16 * p.head_dim;
  const std::size_t maxima =
      std::size_t(p.batch) * std::max(p.heads * chunks_of(p.seq), p.kv_heads * chunks_of(p.kv_seq));
  const std::size_t floats = p.heads + 2 * p.kv_heads + maxima;
  return rounded_up(p.q_elements()) + rounded_up(p.kv_elements()) + rounded_up(tiles) +
         rounded_up(floats * sizeof(float));
}

Tensors8::Tensors8(const Problem& p, int key_groups, void* workspace) {
  auto* at = static_cast<std::uint8_t*>(workspace);
  const auto take = [&](std::size_t bytes) {
    std::uint8_t* taken = at;
    at += rounded_up(bytes);
    return taken;
  };
  q = take(p.q_elements());
  k = take(p.kv_elements());
  v_tiles = take(std::size_t(p.batch) * p.kv_heads * key_groups * 16 * p.head_dim);
  q_scale = reinterpret_cast<float*>(at);
  k_scale = q_scale + p.heads;
  v_scale = k_scale + p.kv_heads;
  maxima = v_scale + p.kv_heads;
}

void launch_quantise(const Problem& p, const Quantisation& how, const Arguments& a,
                     const Tensors8& out, int key_groups, Stream stream) {
  const bool half = p.dtype == DType::fp16;
  const auto f = how.rotate ? (half ? choose_D<__half, true> : choose_D<__nv_bfloat16, true>)
                            : (half ? choose_D<__half, false> : choose_D<__nv_bfloat16, false>);
  f(p, how, a, out, key_groups, stream);
}

void launch_tile_V(const Problem& p, const void* v, std::uint8_t* v_tiles, int key_groups,
                   Stream stream) {
  start_tile_V(p, static_cast<const std::uint8_t*>(v), nullptr, p.dtype, v_tiles, key_groups,
               stream);
}

}  // namespace al::fp8
