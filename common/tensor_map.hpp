// A tensor map tells the copy engine of sm_90 (TMA) of a tensor in global memory and of the box of
// it that one copy moves. It is made on the host and passed to a kernel as a `const
// __grid_constant__ TensorMap` parameter. See common/ptx/tma.cuh.
#pragma once

#include <cuda.h>  // types only: the driver is asked at run time

#include <cstdint>
#include <vector>

namespace al {

using TensorMap = CUtensorMap;  // 128 bytes, opaque

enum class TensorElement { u8, f16, bf16, f32 };  // u8 for FP8: the engine moves bytes

// How a box lies in shared memory: the rows one after the other; within each 8 rows of 32, 64 or
// 128 bytes the 16-byte parts change places, so that a column of 8 rows meets all banks: bits 4 …
// of the shared address are XORed with bits 7 …, as many as the name says.
enum class Swizzle { none, b32, b64, b128 };

struct TensorMapShape {
  // Innermost first, 1 to 5 dimensions. A box is part of the tensor, at most 256 each way; a row of
  // it is a multiple of 16 bytes, with a swizzle no longer than the swizzle's span. What of a box
  // lies outside of the tensor is loaded as zeros and not stored.
  std::vector<std::uint64_t> sizes;
  std::vector<std::uint64_t> strides;  // in bytes, multiples of 16, of all but the innermost
  std::vector<std::uint32_t> box;
};

// Throws Error(usage) naming what a map cannot say, Error(no_device) when the driver has no TMA.
// `data`: on the device, a multiple of 16.
TensorMap make_tensor_map(const void* data, TensorElement element, const TensorMapShape& shape,
                          Swizzle swizzle = Swizzle::none);

}  // namespace al
