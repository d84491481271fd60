// The launches of hopper.cuh.
#include "06_fp8_prefetch_v3/hopper.cuh"
#include "06_fp8_prefetch_v3/kernels.hpp"

namespace al::fp8 {
namespace {

template <typename T>
void choose_D(const Problem& p, const Operands& x, Stream stream) {
  const auto f = p.head_dim == 64    ? launch_attention_wgmma<T, 64>
                 : p.head_dim == 128 ? launch_attention_wgmma<T, 128>
                                     : launch_attention_wgmma<T, 256>;
  f(p, x, stream);
}

}  // namespace

void launch_wgmma(const Problem& p, const Operands& x, Stream stream) {
  const auto f = x.dtype == DType::e4m3 ? choose_D<__nv_fp8_e4m3> : choose_D<__nv_fp8_e5m2>;
  f(p, x, stream);
}

int key_groups_wgmma(const Problem& p) {
  const int block_n = p.head_dim == 64    ? WgmmaTile<64>::BLOCK_N
                      : p.head_dim == 128 ? WgmmaTile<128>::BLOCK_N
                                          : WgmmaTile<256>::BLOCK_N;
  return ceil_div(p.kv_seq, block_n) * (block_n / 16);
}

}  // namespace al::fp8
