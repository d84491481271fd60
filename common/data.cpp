#include "common/data.hpp"

#include <bit>
#include <cmath>
#include <cstring>

#include "common/parallel.hpp"

namespace al {
namespace {

constexpr std::int64_t kChunk = 1 << 16;  // elements a thread takes at a time

// SplitMix64's output function (Steele, Lea and Flood, "Fast splittable pseudorandom number
// generators", 2014): every input bit changes about half of the output bits.
std::uint64_t mix(std::uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// Random access to a stream of 64-bit words: word n depends on the stream and n alone, so any
// thread on any machine can make any part of it.
class WordStream {
 public:
  WordStream(std::uint64_t seed, std::uint64_t tensor) : key_(mix(mix(seed + kStep) + tensor)) {}
  std::uint64_t operator[](std::uint64_t n) const { return mix(key_ + (n + 1) * kStep); }

 private:
  static constexpr std::uint64_t kStep = 0x9e3779b97f4a7c15;  // 2^64 / golden ratio
  std::uint64_t key_;
};

// Approximately normal: the sum of twelve uniform 16-bit integers, less its mean, has variance
// 65536^2 to within 2^-32. It fits fp32's 24 bits and the last step divides by a power of two,
// so nothing is ever rounded.
float normal(const WordStream& words, std::uint64_t index) {
  std::uint64_t pairs = 0;  // two 32-bit sums side by side
  for (std::uint64_t n = 0; n < 3; ++n) {
    const std::uint64_t word = words[3 * index + n];
    pairs += (word & 0x0000ffff0000ffff) + ((word >> 16) & 0x0000ffff0000ffff);
  }
  const auto sum = static_cast<std::int32_t>((pairs & 0xffffffff) + (pairs >> 32));
  return static_cast<float>(sum - 6 * 65535) * 0x1p-16f;
}

std::uint32_t bits(float value) { return std::bit_cast<std::uint32_t>(value); }

std::uint16_t to_half(float value) {
  const std::uint32_t sign = (bits(value) >> 16) & 0x8000;
  const std::uint32_t magnitude = bits(value) & 0x7fffffff;
  if (magnitude > 0x7f800000) return 0x7fff;              // NaN, as CUDA's conversion has it
  if (magnitude >= bits(65520.0f)) return sign | 0x7c00;  // rounds to infinity
  if (magnitude >= bits(0x1p-14f)) {
    // Half the last kept place, less one when the result would be odd: ties go to even.
    const std::uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
    return sign | ((rounded - (112u << 23)) >> 13);  // exponent bias 127 becomes 15
  }
  // Subnormal: added to 0.5, whose last place is 2^-24, the hardware rounds to a multiple of it.
  return sign | (bits(std::bit_cast<float>(magnitude) + 0.5f) - bits(0.5f));
}

float from_half(std::uint16_t half) {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000) << 16;
  const std::uint32_t magnitude = half & 0x7fff;
  std::uint32_t value = (magnitude << 13) + (112u << 23);
  if (magnitude >= 0x7c00) value += 112u << 23;  // infinity and NaN
  if (magnitude < 0x0400) value = bits(static_cast<float>(magnitude) * 0x1p-24f);
  return std::bit_cast<float>(value | sign);
}

std::uint16_t to_bfloat16(float value) {
  if (std::isnan(value)) return 0x7fff;
  return (bits(value) + 0x7fff + ((bits(value) >> 16) & 1)) >> 16;
}

float from_bfloat16(std::uint16_t value) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(value) << 16);
}

std::vector<float> make_tensor(const Problem& problem, std::int64_t elements,
                               Distribution distribution, std::uint64_t seed,
                               std::uint64_t tensor) {
  constexpr std::uint64_t kOutlierStreams = 16;  // beyond the tensors' own
  const WordStream words(seed, tensor);
  const WordStream outliers(seed, tensor + kOutlierStreams);
  std::vector<float> values(elements);
  parallel_for(elements, kChunk, 0, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      float value = normal(words, i);
      if (distribution == Distribution::outliers && outliers[i] % 1024 == 0) value *= 20;
      values[i] = round_to(problem.dtype, value);
    }
  });
  return values;
}

}  // namespace

HostInputs make_inputs(const Problem& problem, Distribution distribution, std::uint64_t seed) {
  const auto tensor = [&](std::int64_t elements, std::uint64_t id) {
    return make_tensor(problem, elements, distribution, seed, id);
  };
  HostInputs inputs;
  inputs.q = tensor(problem.q_elements(), 0);
  inputs.k = tensor(problem.kv_elements(), 1);
  if (problem.operation != Operation::scores) inputs.v = tensor(problem.kv_elements(), 2);
  return inputs;
}

float round_to(DType dtype, float value) {
  switch (dtype) {
    case DType::fp32:
      return value;
    case DType::fp16:
      return from_half(to_half(value));
    case DType::bf16:
      return from_bfloat16(to_bfloat16(value));
  }
  return value;
}

std::vector<std::byte> encode(DType dtype, const std::vector<float>& values) {
  std::vector<std::byte> bytes(values.size() * bytes_of(dtype));
  if (bytes.empty()) return bytes;  // memcpy may not be given its null pointer
  if (dtype == DType::fp32) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  const auto convert = dtype == DType::fp16 ? to_half : to_bfloat16;
  parallel_for(std::ssize(values), kChunk, 0, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::uint16_t element = convert(values[i]);
      std::memcpy(bytes.data() + 2 * i, &element, 2);
    }
  });
  return bytes;
}

std::vector<float> decode(DType dtype, const void* bytes, std::size_t count) {
  std::vector<float> values(count);
  if (dtype == DType::fp32) {
    std::memcpy(values.data(), bytes, count * sizeof(float));
    return values;
  }
  const auto convert = dtype == DType::fp16 ? from_half : from_bfloat16;
  const auto* source = static_cast<const std::byte*>(bytes);
  parallel_for(std::ssize(values), kChunk, 0, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      std::uint16_t element;
      std::memcpy(&element, source + 2 * i, 2);
      values[i] = convert(element);
    }
  });
  return values;
}

}  // namespace al
