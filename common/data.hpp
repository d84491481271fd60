// Test data: an integer hash makes it, so every machine and back end sees the same bits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/buffer.hpp"
#include "common/problem.hpp"

namespace al {

enum class Distribution {
  normal,    // mean 0, variance 1: a sum of twelve uniforms, all in integers until the last step
  outliers,  // the same, with one element in 1024 made 20 times larger
};

// The inputs on the host, as fp32 values already rounded to the tensor's dtype, so that the oracle
// and the kernel start from the same numbers. What the operation does not read is empty. Tensors of
// 8 bits are held as they are stored, with the scale of each head beside them. S and P are
// never held here, for they can be larger than the host's memory: fill_on_device and input_row
// make the same numbers of them where they are needed. S is like Q, but its outliers are 64
// times larger, and with them one entry in 16 is -inf; P is uniform in [0, 1).
struct HostInputs {
  std::vector<float> q = {}, k = {}, v = {};
  // [Hq], [Hkv], [Hkv]; empty: not of 8 bits.
  std::vector<float> q_scale = {}, k_scale = {}, v_scale = {};
  Distribution distribution = Distribution::normal;
  std::uint64_t seed = 1;
};

HostInputs make_inputs(const Problem& problem, Distribution distribution, std::uint64_t seed);

// Brings a tensor [B, heads, rows, columns] into its dtype, in place: each element to the nearest.
// For 8 bits each head is first divided by a scale that makes its largest element the dtype's
// largest number, and the scales are returned; with `one_factor` all heads by the same one.
std::vector<float> store(DType dtype, int heads, std::int64_t head_elements,
                         std::vector<float>& values, bool one_factor = false);

// The page that holds the keys from j · page_size on of sequence b, at [b · max_pages + j]: all
// pages, shuffled, so that a kernel that goes on to the next page in memory is found out. -1 where
// a sequence has no such keys. Empty without pages.
std::vector<int> make_page_table(const Problem& problem, std::uint64_t seed);

// K or V as a kernel finds it, in its dtype and its pages: with 0xff bytes, which are a NaN in
// every dtype, where no key is.
std::vector<std::byte> cache_bytes(const Problem& problem, const std::vector<float>& values,
                                   const std::vector<int>& page_table);

// Row `row` (0 … q_rows() - 1) of S or P, kv_seq elements, rounded to the tensor's dtype.
std::vector<float> input_row(const Problem& problem, Tensor tensor, const HostInputs& inputs,
                             std::int64_t row);
// The whole of S or P, in device memory at `data` (fill.cu). Masked entries become poison, as
// DeviceBuffer::poison() has it, so that a kernel that reads one is found out.
void fill_on_device(const Problem& problem, Tensor tensor, const HostInputs& inputs, void* data);
// The same in a buffer of its own; none where the operation does not read it.
DeviceBuffer filled(const Problem& problem, Tensor tensor, const HostInputs& inputs,
                    const char* name);

// Nearest value of `dtype`, ties to even, in 8 bits never beyond the largest; and the bytes a
// kernel reads.
float round_to(DType dtype, float value);
std::vector<std::byte> encode(DType dtype, const std::vector<float>& values);
// The reverse: `count` elements of `dtype` at `bytes`, widened to fp32.
std::vector<float> decode(DType dtype, const void* bytes, std::size_t count);

}  // namespace al
