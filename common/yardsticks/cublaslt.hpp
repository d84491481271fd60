// cuBLASLt, opened at run time: the only interface through which cuBLAS multiplies 8-bit numbers.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/device.hpp"

namespace al::cublaslt {

// Empty when it is there; else why it is not, and what to do.
std::string why_absent();

// C = A B^T for square row-major matrices of `size` rows: A and B in e4m3, C in fp16, sums as the
// tensor cores make them. Needs sm_89. Both throw Error(wrong_result) with the library's status
// when it refuses.
class ProductE4m3 {
 public:
  ProductE4m3(int size, std::size_t workspace_bytes);
  // How many ways the library would try, best guess first.
  int algorithms() const { return static_cast<int>(algorithms_.size()); }
  void enqueue(int algorithm, const void* a, const void* b, void* c, void* workspace,
               Stream stream) const;

 private:
  std::size_t workspace_bytes_;
  // The library's, and not given back: it is asked for one product in a process.
  struct Context* context_ = nullptr;
  struct Description* description_ = nullptr;
  struct Layout *operand_ = nullptr, *result_ = nullptr;
  std::vector<std::array<std::uint64_t, 8>> algorithms_;
};

}  // namespace al::cublaslt
