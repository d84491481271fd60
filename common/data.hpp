// Test data: an integer hash makes it, so every machine and back end sees the same bits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/problem.hpp"

namespace al {

enum class Distribution {
  normal,    // mean 0, variance 1: a sum of twelve uniforms, all in integers until the last step
  outliers,  // the same, with one element in 1024 made 20 times larger
};

// The inputs on the host, as fp32 values already rounded to problem.dtype, so that the oracle and
// the kernel start from the same numbers. v is empty when the operation does not read it.
struct HostInputs {
  std::vector<float> q, k, v;
};

HostInputs make_inputs(const Problem& problem, Distribution distribution, std::uint64_t seed);

// Nearest value of `dtype`, ties to even; and the bytes a kernel reads (fp32, fp16 or bf16).
float round_to(DType dtype, float value);
std::vector<std::byte> encode(DType dtype, const std::vector<float>& values);
// The reverse: `count` elements of `dtype` at `bytes`, widened to fp32.
std::vector<float> decode(DType dtype, const void* bytes, std::size_t count);

}  // namespace al
