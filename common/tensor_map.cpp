#include "common/tensor_map.hpp"

#include <cuda_runtime_api.h>

#include <string>

#include "common/error.hpp"

namespace al {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

// The driver's function, without linking the driver's library.
Encode encoder() {
#ifdef AL_EMULATOR
  return &cuTensorMapEncodeTiled;  // emulator/tensor_map.cpp
#else
  static const Encode function = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result{};
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault,
                                         &result) != cudaSuccess ||
        result != cudaDriverEntryPointSuccess) {
      throw Error(ExitCode::no_device,
                  "The driver has no cuTensorMapEncodeTiled: TMA needs driver 525 or newer.");
    }
    return reinterpret_cast<Encode>(found);
  }();
  return function;
#endif
}

CUtensorMapDataType data_type(TensorElement element) {
  switch (element) {
    case TensorElement::u8:
      return CU_TENSOR_MAP_DATA_TYPE_UINT8;
    case TensorElement::f16:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
    case TensorElement::bf16:
      return CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    default:
      return CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
  }
}

CUtensorMapSwizzle swizzle_mode(Swizzle swizzle) {
  switch (swizzle) {
    case Swizzle::b32:
      return CU_TENSOR_MAP_SWIZZLE_32B;
    case Swizzle::b64:
      return CU_TENSOR_MAP_SWIZZLE_64B;
    case Swizzle::b128:
      return CU_TENSOR_MAP_SWIZZLE_128B;
    default:
      return CU_TENSOR_MAP_SWIZZLE_NONE;
  }
}

std::string describe(const TensorMapShape& shape) {
  std::string text = "sizes";
  for (const auto n : shape.sizes) text += " " + std::to_string(n);
  text += ", strides in bytes";
  for (const auto n : shape.strides) text += " " + std::to_string(n);
  text += ", box";
  for (const auto n : shape.box) text += " " + std::to_string(n);
  return text;
}

}  // namespace

TensorMap make_tensor_map(const void* data, TensorElement element, const TensorMapShape& shape,
                          Swizzle swizzle) {
  const std::size_t rank = shape.sizes.size();
  const std::vector<std::uint32_t> ones(rank, 1);
  TensorMap map{};
  if (shape.strides.size() + 1 != rank || shape.box.size() != rank ||
      encoder()(&map, data_type(element), static_cast<cuuint32_t>(rank), const_cast<void*>(data),
                shape.sizes.data(), shape.strides.data(), shape.box.data(), ones.data(),
                CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle_mode(swizzle),
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) != CUDA_SUCCESS) {
    throw usage_error("No tensor map can say this: " + describe(shape) +
                      ". The address and the strides must be multiples of 16 bytes, a box at most "
                      "256 each way, its rows a multiple of 16 bytes and no longer than the "
                      "swizzle's span.");
  }
  return map;
}

}  // namespace al
