#include "common/data.hpp"

#include <bit>
#include <cmath>
#include <cstring>

#include "common/hash_data.hpp"
#include "common/parallel.hpp"

namespace al {
namespace {

constexpr std::int64_t kChunk = 1 << 16;  // elements a thread takes at a time

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

std::vector<float> make_elements(const TensorData& data, std::int64_t first, std::int64_t count,
                                 DType dtype) {
  std::vector<float> values(count);
  parallel_for(count, kChunk, 0, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) values[i] = round_to(dtype, data[first + i]);
  });
  return values;
}

}  // namespace

HostInputs make_inputs(const Problem& problem, Distribution distribution, std::uint64_t seed) {
  const auto tensor = [&](Tensor which, std::int64_t elements) -> std::vector<float> {
    if (!reads(problem.operation, which)) return {};
    const TensorData data(which, seed, distribution == Distribution::outliers);
    return make_elements(data, 0, elements, problem.dtype);
  };
  return {.q = tensor(Tensor::q, problem.q_elements()),
          .k = tensor(Tensor::k, problem.kv_elements()),
          .v = tensor(Tensor::v, problem.kv_elements()),
          .distribution = distribution,
          .seed = seed};
}

std::vector<float> input_row(const Problem& problem, Tensor tensor, const HostInputs& inputs,
                             std::int64_t row) {
  const TensorData data(tensor, inputs.seed, inputs.distribution == Distribution::outliers);
  const DType dtype = tensor == Tensor::s ? problem.score_dtype() : problem.dtype;
  return make_elements(data, row * problem.kv_seq, problem.kv_seq, dtype);
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
