// From a run-time DType or head dim to what a kernel is compiled for.
#pragma once

#include <type_traits>

#include "common/device.cuh"
#include "common/error.hpp"
#include "common/problem.hpp"

namespace al {

// Calls f(T{}) with T = float, __half or __nv_bfloat16. Variants that take 8 bits choose by
// themselves; all others have refused them (stage.hpp).
template <typename F>
void dispatch(DType dtype, F&& f) {
  switch (dtype) {
    case DType::fp32:
      return f(float{});
    case DType::fp16:
      return f(__half{});
    case DType::bf16:
      return f(__nv_bfloat16{});
    case DType::e4m3:
    case DType::e5m2:
      break;
  }
  throw usage_error("8-bit inputs are not for this kernel.");
}

// Calls f(std::integral_constant<int, D>{}) with D = head_dim, one of those there are.
template <typename F>
void dispatch_head_dim(int head_dim, F&& f) {
  switch (head_dim) {
    case 16:
      return f(std::integral_constant<int, 16>{});
    case 32:
      return f(std::integral_constant<int, 32>{});
    case 64:
      return f(std::integral_constant<int, 64>{});
    case 128:
      return f(std::integral_constant<int, 128>{});
    case 256:
      return f(std::integral_constant<int, 256>{});
  }
  throw usage_error("The head dim must be 16, 32, 64, 128 or 256.");
}

}  // namespace al
