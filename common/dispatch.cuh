// From a run-time DType to the C++ type a kernel is compiled for.
#pragma once

#include "common/device.cuh"
#include "common/problem.hpp"

namespace al {

// Calls f(T{}) with T = float, __half or __nv_bfloat16.
template <typename F>
void dispatch(DType dtype, F&& f) {
  switch (dtype) {
    case DType::fp32:
      return f(float{});
    case DType::fp16:
      return f(__half{});
    case DType::bf16:
      return f(__nv_bfloat16{});
  }
}

}  // namespace al
