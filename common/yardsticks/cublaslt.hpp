// cuBLASLt, opened at run time: the only interface through which cuBLAS multiplies 8-bit numbers.
#pragma once

#include <cstddef>
#include <string>

#include "common/device.hpp"

namespace al::cublaslt {

// Empty when it is there; else why it is not, and what to do.
std::string why_absent();

// Enqueues C = A B^T for square row-major matrices of `size` rows: A and B in e4m3, C in fp16,
// sums as the tensor cores make them. Needs sm_89. Throws Error(wrong_result) with the library's
// status when it refuses.
void multiply_e4m3(int size, const void* a, const void* b, void* c, void* workspace,
                   std::size_t workspace_bytes, Stream stream);

}  // namespace al::cublaslt
