// The driver's cuTensorMapEncodeTiled, with its rules, for an emulated device.
#include <algorithm>
#include <cstring>

#include "common/emulator/tensor_box.hpp"

namespace al::emulator {
namespace {

constexpr std::uint64_t kMagic = 0x70614d726f736e54;  // "TnsorMap"

int bytes_of(CUtensorMapDataType type) {
  switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8:
      return 1;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
      return 2;
    case CU_TENSOR_MAP_DATA_TYPE_UINT32:
    case CU_TENSOR_MAP_DATA_TYPE_INT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
      return 4;
    case CU_TENSOR_MAP_DATA_TYPE_UINT64:
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT64:
      return 8;
    default:
      return 0;
  }
}

}  // namespace

std::optional<TensorBox> read_tensor_map(const TensorMap& map) {
  TensorBox box;
  std::memcpy(&box, &map, sizeof box);
  if (box.magic != kMagic) return std::nullopt;
  return box;
}

}  // namespace al::emulator

extern "C" CUresult CUDAAPI cuTensorMapEncodeTiled(
    CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* address,
    const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
    const cuuint32_t* element_strides, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
    CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill) {
  using al::emulator::TensorBox;
  const int element = al::emulator::bytes_of(type);
  const auto number = reinterpret_cast<std::uint64_t>(address);
  if (!map || element == 0 || rank < 1 || rank > 5 || !address || number % 16 != 0 ||
      interleave != CU_TENSOR_MAP_INTERLEAVE_NONE || fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE ||
      swizzle > CU_TENSOR_MAP_SWIZZLE_128B) {
    return CUDA_ERROR_INVALID_VALUE;
  }
  TensorBox out{};
  out.magic = al::emulator::kMagic;
  out.address = number;
  out.rank = static_cast<std::uint8_t>(rank);
  out.element = static_cast<std::uint8_t>(element);
  out.swizzle = static_cast<std::uint8_t>(swizzle - CU_TENSOR_MAP_SWIZZLE_NONE);
  for (cuuint32_t d = 0; d < rank; ++d) {
    if (sizes[d] < 1 || sizes[d] > 1ull << 32 || box[d] < 1 || box[d] > 256 ||
        element_strides[d] != 1 ||
        (d > 0 && (strides[d - 1] % 16 != 0 || strides[d - 1] >= 1ull << 40))) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    out.last[d] = static_cast<std::uint32_t>(sizes[d] - 1);
    out.box[d] = static_cast<std::uint16_t>(box[d]);
    if (d > 0) out.strides[d - 1] = strides[d - 1];
  }
  const std::size_t span = out.swizzle == 0 ? std::size_t{256} * 8 : std::size_t{16} << out.swizzle;
  if (out.row_bytes() % 16 != 0 || out.row_bytes() > span) return CUDA_ERROR_INVALID_VALUE;
  static_assert(sizeof out <= sizeof *map);
  std::memset(map, 0, sizeof *map);
  std::memcpy(map, &out, sizeof out);
  return CUDA_SUCCESS;
}
