#include "common/data.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

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

// The 8-bit floats, by their bits of mantissa and the bias of their exponent. Conversions saturate:
// they never make an infinity, which e4m3 does not even have.
template <int MANTISSA, int BIAS>
struct Fp8 {
  static constexpr int SHIFT = 23 - MANTISSA;
  static constexpr float LARGEST = MANTISSA == 3 ? 448 : 57344;
  static constexpr std::uint32_t SMALLEST_NORMAL = std::uint32_t{128 - BIAS} << 23;  // 2^(1 - BIAS)
  // fp32's last place here is that of the subnormals.
  static constexpr std::uint32_t SUBNORMAL_UNIT = std::uint32_t{151 - BIAS - MANTISSA} << 23;

  static std::uint8_t from(float value) {
    const std::uint32_t sign = (bits(value) >> 24) & 0x80;
    if (std::isnan(value)) return 0x7f;  // as CUDA does, without its sign
    const std::uint32_t magnitude = std::min(bits(value) & 0x7fffffff, bits(LARGEST));
    if (magnitude >= SMALLEST_NORMAL) {
      const std::uint32_t half = (1u << (SHIFT - 1)) - 1;
      const std::uint32_t rounded = magnitude + half + ((magnitude >> SHIFT) & 1);
      return sign | ((rounded - (std::uint32_t{127 - BIAS} << 23)) >> SHIFT);
    }
    const float unit = std::bit_cast<float>(SUBNORMAL_UNIT);
    return sign | (bits(std::bit_cast<float>(magnitude) + unit) - SUBNORMAL_UNIT);
  }

  static float to_fp32(std::uint8_t code) {
    const std::uint32_t sign = static_cast<std::uint32_t>(code & 0x80) << 24;
    const std::uint32_t magnitude = code & 0x7f;
    std::uint32_t value = (magnitude << SHIFT) + (std::uint32_t{127 - BIAS} << 23);
    if (magnitude < 1u << MANTISSA) {  // subnormal
      value =
          bits(static_cast<float>(magnitude) * std::bit_cast<float>(SUBNORMAL_UNIT - (23 << 23)));
    }
    if (MANTISSA == 3 && magnitude == 0x7f) value = 0x7fc00000;
    if (MANTISSA == 2 && magnitude >= 0x7c) value = 0x7f800000 | (magnitude & 3) << 21;
    return std::bit_cast<float>(value | sign);
  }
};
using E4M3 = Fp8<3, 7>;
using E5M2 = Fp8<2, 15>;

// f(conversion to the element's bits, conversion back), for any dtype but fp32.
template <typename F>
auto with_conversions(DType dtype, F&& f) {
  switch (dtype) {
    case DType::bf16:
      return f(to_bfloat16, from_bfloat16);
    case DType::e4m3:
      return f(E4M3::from, E4M3::to_fp32);
    case DType::e5m2:
      return f(E5M2::from, E5M2::to_fp32);
    default:
      return f(to_half, from_half);
  }
}

// In parallel: f(i) for the indices of `values`.
template <typename F>
void for_each_index(const std::vector<float>& values, F&& f) {
  parallel_for(std::ssize(values), kChunk, 0, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) f(i);
  });
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
  HostInputs inputs{.distribution = distribution, .seed = seed};
  const auto make = [&](Tensor which, DType dtype, int heads, std::int64_t rows,
                        std::vector<float>& values, std::vector<float>& scale) {
    if (!reads(problem.operation, which)) return;
    const TensorData data(which, seed, distribution == Distribution::outliers);
    const std::int64_t head_elements = rows * problem.head_dim;
    values = make_elements(data, 0, problem.batch * heads * head_elements, DType::fp32);
    scale = store(dtype, heads, head_elements, values, problem.one_factor);
  };
  const DType cache = problem.cache_dtype();
  make(Tensor::q, problem.dtype, problem.heads, problem.seq, inputs.q, inputs.q_scale);
  make(Tensor::k, cache, problem.kv_heads, problem.kv_seq, inputs.k, inputs.k_scale);
  make(Tensor::v, cache, problem.kv_heads, problem.kv_seq, inputs.v, inputs.v_scale);
  return inputs;
}

std::vector<float> store(DType dtype, int heads, std::int64_t head_elements,
                         std::vector<float>& values, bool one_factor) {
  std::vector<float> scales;
  if (one_factor) {  // as if there were one head
    scales = store(dtype, 1, heads * head_elements, values);
    if (!scales.empty()) scales.assign(heads, scales.front());
    return scales;
  }
  if (is_fp8(dtype)) {
    const float largest = dtype == DType::e4m3 ? E4M3::LARGEST : E5M2::LARGEST;
    scales.assign(heads, 1);
    parallel_for(heads, 1, 0, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t head = begin; head < end; ++head) {
        float most = 0;
        const auto of_head = [&](auto f) {
          const std::int64_t step = heads * head_elements;
          for (std::int64_t at = head * head_elements; at < std::ssize(values); at += step) {
            for (std::int64_t i = at; i < at + head_elements; ++i) f(values[i]);
          }
        };
        of_head([&](float x) { most = std::max(most, std::abs(x)); });
        if (most > 0 && std::isfinite(most)) scales[head] = most / largest;
        of_head([&](float& x) { x /= scales[head]; });
      }
    });
  }
  for_each_index(values, [&](std::int64_t i) { values[i] = round_to(dtype, values[i]); });
  return scales;
}

std::vector<int> make_page_table(const Problem& problem, std::uint64_t seed) {
  const int max_pages = problem.max_pages();
  std::vector<int> table(std::size_t(problem.batch) * max_pages);
  std::iota(table.begin(), table.end(), 0);
  constexpr std::uint64_t kStream = 32;  // beyond those of TensorData
  const WordStream words(seed, kStream);
  for (std::size_t i = table.size(); i > 1; --i) std::swap(table[i - 1], table[words[i] % i]);
  for (std::size_t at = 0; at < table.size(); ++at) {
    const int first_key = static_cast<int>(at % max_pages) * problem.page_size;
    if (first_key >= problem.keys(static_cast<int>(at / max_pages))) table[at] = -1;
  }
  return table;
}

std::vector<std::byte> cache_bytes(const Problem& p, const std::vector<float>& values,
                                   const std::vector<int>& page_table) {
  std::vector<std::byte> whole = encode(p.cache_dtype(), values);
  if (p.kv_len.empty() && p.page_size == 0) return whole;
  const std::size_t row_bytes = p.head_dim * bytes_of(p.cache_dtype());
  std::vector<std::byte> cache(p.cache_elements() * bytes_of(p.cache_dtype()), std::byte{0xff});
  const int step = p.page_size > 0 ? p.page_size : p.kv_seq;  // keys that lie together
  const std::int64_t heads = std::int64_t{p.batch} * p.kv_heads;
  parallel_for(values.empty() ? 0 : heads, 1, 0, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t head = begin; head < end; ++head) {
      const int sequence = static_cast<int>(head / p.kv_heads), keys = p.keys(sequence);
      for (int j = 0; j < keys; j += step) {
        std::int64_t place = head;  // in units of `step` rows
        if (p.page_size > 0) {
          const int page = page_table[std::size_t(sequence) * p.max_pages() + j / p.page_size];
          place = std::int64_t{page} * p.kv_heads + head % p.kv_heads;
        }
        std::memcpy(&cache[place * step * row_bytes], &whole[(head * p.kv_seq + j) * row_bytes],
                    std::min(step, keys - j) * row_bytes);
      }
    }
  });
  return cache;
}

std::vector<float> input_row(const Problem& problem, Tensor tensor, const HostInputs& inputs,
                             std::int64_t row) {
  const TensorData data(tensor, inputs.seed, inputs.distribution == Distribution::outliers);
  const DType dtype = tensor == Tensor::s ? problem.score_dtype() : problem.dtype;
  return make_elements(data, row * problem.kv_seq, problem.kv_seq, dtype);
}

DeviceBuffer filled(const Problem& p, Tensor tensor, const HostInputs& inputs, const char* name) {
  if (!reads(p.operation, tensor)) return {};
  const DType dtype = tensor == Tensor::s ? p.score_dtype() : p.dtype;
  DeviceBuffer buffer(p.score_elements() * bytes_of(dtype), name);
  fill_on_device(p, tensor, inputs, buffer.data());
  return buffer;
}

float round_to(DType dtype, float value) {
  if (dtype == DType::fp32) return value;
  return with_conversions(dtype, [&](auto to, auto from) { return from(to(value)); });
}

std::vector<std::byte> encode(DType dtype, const std::vector<float>& values) {
  std::vector<std::byte> bytes(values.size() * bytes_of(dtype));
  if (bytes.empty()) return bytes;  // memcpy may not be given its null pointer
  if (dtype == DType::fp32) {
    std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
  }
  with_conversions(dtype, [&](auto to, auto) {
    for_each_index(values, [&](std::int64_t i) {
      const auto element = to(values[i]);
      std::memcpy(bytes.data() + sizeof(element) * i, &element, sizeof(element));
    });
  });
  return bytes;
}

std::vector<float> decode(DType dtype, const void* bytes, std::size_t count) {
  std::vector<float> values(count);
  if (dtype == DType::fp32) {
    std::memcpy(values.data(), bytes, count * sizeof(float));
    return values;
  }
  with_conversions(dtype, [&](auto to, auto from) {
    for_each_index(values, [&](std::int64_t i) {
      decltype(to(0.0f)) element;
      std::memcpy(&element, static_cast<const std::byte*>(bytes) + sizeof(element) * i,
                  sizeof(element));
      values[i] = from(element);
    });
  });
  return values;
}

}  // namespace al
