// From a run-time DType to the C++ type a kernel is compiled for.
#pragma once

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

}  // namespace al
