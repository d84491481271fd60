#include "common/yardsticks/widen.hpp"

#include <cuda_fp8.h>

#include <cstdint>

#include "common/kernel_shape.cuh"
#include "common/launch.cuh"

namespace al {
namespace {

// A block takes 256 elements of a head.
__global__ void widen_elements(const std::uint8_t* o8, const float* v_scale, __half* out,
                               int blocks_per_head, int head_elements, KernelShape shape) {
  const int bh = blockIdx.x / blocks_per_head;
  const int at = blockIdx.x % blocks_per_head * blockDim.x + threadIdx.x;
  if (at >= head_elements) return;
  __nv_fp8_e4m3 x;
  x.__x = o8[std::size_t(bh) * head_elements + at];
  out[std::size_t(bh) * head_elements + at] =
      __float2half_rn(static_cast<float>(x) * v_scale[bh % shape.heads / shape.group]);
}

}  // namespace

void widen_heads(const Problem& p, const void* o8, const float* v_scale, void* out, Stream stream) {
  const int head_elements = p.seq * p.head_dim, blocks = ceil_div(head_elements, 256);
  launch(widen_elements,
         {.name = "widen_elements",
          .grid = dim3(p.batch * p.heads * blocks),
          .block = dim3(256),
          .stream = stream},
         static_cast<const std::uint8_t*>(o8), v_scale, static_cast<__half*>(out), blocks,
         head_elements, KernelShape(p));
}

}  // namespace al
