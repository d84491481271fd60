// The launches of prefetch.cuh.
#include "06_fp8_prefetch_v3/kernels.hpp"
#include "06_fp8_prefetch_v3/prefetch.cuh"

namespace al::fp8 {
namespace {

template <typename T, int D>
void choose_stages(const Problem& p, const Operands& x, MmaShape shape, Stream stream) {
  // Only so that the table can tell what each idea brings.
  constexpr bool ALL_STAGES =
      D <= 128 && (std::is_same_v<T, __half> || std::is_same_v<T, __nv_fp8_e4m3>);
  if constexpr (ALL_STAGES) {
    if (shape == MmaShape{1, 8}) return launch_attention_mma<T, D, 1, 8>(p, x, stream);
    if (shape == MmaShape{3, 8}) return launch_attention_mma<T, D, 3, 8>(p, x, stream);
    if (shape == MmaShape{1, 4}) return launch_attention_mma<T, D, 1, 4>(p, x, stream);
  }
  if (shape.warps == 8) return launch_attention_mma<T, D, 2, 8>(p, x, stream);
  launch_attention_mma<T, D, 2, 4>(p, x, stream);
}

template <typename T>
void choose_D(const Problem& p, const Operands& x, MmaShape shape, Stream stream) {
  const auto f = p.head_dim == 64    ? choose_stages<T, 64>
                 : p.head_dim == 128 ? choose_stages<T, 128>
                                     : choose_stages<T, 256>;
  f(p, x, shape, stream);
}

// What MmaTile::shared() says, without the many types.
template <typename T>
std::size_t shared_of(int head_dim, MmaShape shape) {
  const auto at = [&]<int D>(std::integral_constant<int, D>) {
    using Tile = MmaTile<T, D, 1, 1>;
    return shape.warps * sizeof(typename Tile::Q_tile) +
           2 * shape.stages * sizeof(typename Tile::KV_tiles);
  };
  return head_dim == 64    ? at(std::integral_constant<int, 64>{})
         : head_dim == 128 ? at(std::integral_constant<int, 128>{})
                           : at(std::integral_constant<int, 256>{});
}

}  // namespace

void launch_mma(const Problem& p, const Operands& x, MmaShape shape, Stream stream) {
  switch (x.dtype) {
    case DType::fp16:
      return choose_D<__half>(p, x, shape, stream);
    case DType::bf16:
      return choose_D<__nv_bfloat16>(p, x, shape, stream);
    case DType::e4m3:
      return choose_D<__nv_fp8_e4m3>(p, x, shape, stream);
    default:
      return choose_D<__nv_fp8_e5m2>(p, x, shape, stream);
  }
}

std::size_t shared_bytes_mma(DType dtype, int head_dim, MmaShape shape) {
  return bytes_of(dtype) == 2 ? shared_of<__half>(head_dim, shape)
                              : shared_of<__nv_fp8_e4m3>(head_dim, shape);
}

}  // namespace al::fp8
