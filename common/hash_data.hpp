// The numbers the test data are made of: an integer hash, in a form that the host and a kernel
// share, so that both make the same bits.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/problem.hpp"

#ifdef __CUDACC__
#define AL_HOST_DEVICE __host__ __device__
#else
#define AL_HOST_DEVICE
#endif

namespace al {

// SplitMix64's output function (Steele, Lea and Flood, "Fast splittable pseudorandom number
// generators", 2014): every input bit changes about half of the output bits.
AL_HOST_DEVICE inline std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// Random access to a stream of 64-bit words: word n depends on the stream and n alone, so any
// thread on any machine can make any part of it.
class WordStream {
 public:
  AL_HOST_DEVICE WordStream(std::uint64_t seed, std::uint64_t stream)
      : key_(mix(mix(seed + kStep) + stream)) {}
  AL_HOST_DEVICE std::uint64_t operator[](std::uint64_t n) const {
    return mix(key_ + (n + 1) * kStep);
  }

 private:
  static constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15;  // 2^64 / golden ratio
  std::uint64_t key_;
};

// Approximately normal: the sum of twelve uniform 16-bit integers, less its mean, has variance
// 65536^2 to within 2^-32. It fits fp32's 24 bits and the last step divides by a power of two,
// so nothing is ever rounded.
AL_HOST_DEVICE inline float normal(const WordStream& words, std::uint64_t index) {
  std::uint64_t pairs = 0;  // two 32-bit sums side by side
  for (std::uint64_t n = 0; n < 3; ++n) {
    const std::uint64_t word = words[3 * index + n];
    pairs += (word & 0x0000ffff0000ffff) + ((word >> 16) & 0x0000ffff0000ffff);
  }
  const auto sum = static_cast<std::int32_t>((pairs & 0xffffffff) + (pairs >> 32));
  return static_cast<float>(sum - 6 * 65535) * 0x1p-16f;
}

// Uniform in [0, 1): a multiple of 2^-24, so nothing is rounded here either.
AL_HOST_DEVICE inline float uniform(const WordStream& words, std::uint64_t index) {
  return static_cast<float>(words[index] >> 40) * 0x1p-24f;
}

// The elements of one tensor, before they are rounded to its dtype. P is uniform, the others are
// normal. With `outliers` one element in 1024 of Q, K and V is 20 times as large, and one of S 64
// times, which is beyond what exp can take; one in 16 of S is -inf, as an additive mask would leave
// it.
class TensorData {
 public:
  TensorData(Tensor tensor, std::uint64_t seed, bool outliers)
      : tensor_(tensor),
        words_(seed, static_cast<int>(tensor)),
        outlier_words_(seed, static_cast<int>(tensor) + kOutlierStreams),
        outliers_(outliers && tensor != Tensor::p) {}

  AL_HOST_DEVICE float operator[](std::uint64_t index) const {
    if (tensor_ == Tensor::p) return uniform(words_, index);
    const float value = normal(words_, index);
    if (!outliers_) return value;
    const std::uint64_t word = outlier_words_[index];
    if (tensor_ == Tensor::s && word % 16 == 1) return -INFINITY;
    const float factor = word % 1024 != 0 ? 1 : tensor_ == Tensor::s ? 64 : 20;
    return factor * value;
  }

 private:
  static constexpr int kOutlierStreams = 16;  // beyond the tensors' own
  Tensor tensor_;
  WordStream words_, outlier_words_;
  bool outliers_;
};

}  // namespace al
