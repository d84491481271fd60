#include "common/data.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "common/buffer.hpp"

using namespace al;

namespace {

Problem one_head(int seq, DType dtype = DType::fp32) {
  return {.heads = 1, .kv_heads = 1, .seq = seq, .kv_seq = seq, .head_dim = 64, .dtype = dtype};
}

std::uint32_t bits(float value) { return std::bit_cast<std::uint32_t>(value); }

float widen(DType dtype, std::uint16_t element) { return decode(dtype, &element, 1)[0]; }

std::uint16_t narrow(DType dtype, float value) {
  std::uint16_t element;
  std::memcpy(&element, encode(dtype, {value}).data(), 2);
  return element;
}

}  // namespace

TEST_CASE("data: these very numbers, on every machine") {
  const HostInputs data = make_inputs(one_head(64), Distribution::normal, 1);
  CHECK(data.q[0] == 0x1.4f4p-3f);
  CHECK(data.k[0] == -0x1.6031p+0f);
  CHECK(data.v[0] == 0x1.fe5cp-2f);
  CHECK(data.q[3] == 0x1.1b5ep+0f);
  CHECK(data.v[3] == 0x1.6facp-1f);
  CHECK(make_inputs(one_head(64), Distribution::normal, 2).q[0] == -0x1.7becp-1f);
}

TEST_CASE("data: an element depends on its index alone, not on who made it") {
  // 1 Mi elements are made in pieces by several threads, 4 Ki by one.
  const HostInputs large = make_inputs(one_head(16384), Distribution::outliers, 7);
  const HostInputs small = make_inputs(one_head(64), Distribution::outliers, 7);
  CHECK(std::equal(small.q.begin(), small.q.end(), large.q.begin()));
  CHECK(std::equal(small.v.begin(), small.v.end(), large.v.begin()));
  CHECK(make_inputs(one_head(16384), Distribution::outliers, 7).k == large.k);
}

TEST_CASE("data: normal has mean 0, variance 1 and the tails of a normal") {
  const std::vector<float> values = make_inputs(one_head(16384), Distribution::normal, 1).q;
  double sum = 0, squares = 0, beyond_2 = 0, neighbours = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    sum += values[i];
    squares += values[i] * values[i];
    beyond_2 += std::abs(values[i]) > 2;
    if (i > 0) neighbours += values[i] * values[i - 1];
  }
  const double n = values.size();  // one standard error of a mean is 0.001
  CHECK(std::abs(sum / n) < 0.004);
  CHECK(std::abs(squares / n - 1) < 0.006);
  CHECK(std::abs(neighbours / n) < 0.004);
  CHECK(beyond_2 / n == doctest::Approx(0.0455).epsilon(0.05));
}

TEST_CASE("data: outliers are the normal data with one element in 1024 made 20 times larger") {
  const std::vector<float> plain = make_inputs(one_head(16384), Distribution::normal, 1).k;
  const std::vector<float> spiked = make_inputs(one_head(16384), Distribution::outliers, 1).k;
  int spikes = 0;
  bool right = true;
  for (std::size_t i = 0; i < plain.size(); ++i) {
    spikes += spiked[i] != plain[i];
    right = right && (spiked[i] == plain[i] || spiked[i] == plain[i] * 20);
  }
  CHECK(right);
  CHECK(spikes > 1024 - 130);  // four standard errors of a count of 1024
  CHECK(spikes < 1024 + 130);
}

TEST_CASE("data: Q, K, V and seeds differ; values are already rounded; scores read no V") {
  Problem p = one_head(64, DType::bf16);
  const HostInputs data = make_inputs(p, Distribution::normal, 1);
  CHECK(data.q != data.k);
  CHECK(data.k != data.v);
  CHECK(data.q != make_inputs(p, Distribution::normal, 2).q);
  for (float value : data.q) REQUIRE(round_to(DType::bf16, value) == value);
  p.operation = Operation::scores;
  CHECK(make_inputs(p, Distribution::normal, 1).v.empty());
  p.operation = Operation::pv;
  const HostInputs for_pv = make_inputs(p, Distribution::normal, 1);
  CHECK(for_pv.q.empty());
  CHECK(for_pv.k.empty());
  CHECK(for_pv.v == data.v);  // an input does not depend on who reads it
}

TEST_CASE("data: S is normal, with outliers -inf here and there; P is uniform in [0, 1)") {
  Problem p = one_head(1024);
  p.operation = Operation::softmax;
  const auto all = [&](Tensor tensor, Distribution distribution) {
    const HostInputs inputs = make_inputs(p, distribution, 1);
    std::vector<float> values;
    for (int row = 0; row < p.seq; ++row) {
      const std::vector<float> one = input_row(p, tensor, inputs, row);
      REQUIRE(one.size() == 1024);
      values.insert(values.end(), one.begin(), one.end());
    }
    return values;
  };
  const std::vector<float> s = all(Tensor::s, Distribution::normal);
  const std::vector<float> q = make_inputs(one_head(16384), Distribution::normal, 1).q;
  CHECK(s.size() == q.size());
  CHECK(s != q);
  double sum = 0, squares = 0;
  for (float value : s) sum += value, squares += value * value;
  CHECK(std::abs(sum / s.size()) < 0.004);
  CHECK(std::abs(squares / s.size() - 1) < 0.006);

  const std::vector<float> spiked = all(Tensor::s, Distribution::outliers);
  int infinite = 0, large = 0, other = 0;
  for (std::size_t i = 0; i < s.size(); ++i) {
    if (spiked[i] == s[i]) continue;
    ++(spiked[i] == -INFINITY ? infinite : spiked[i] == 64 * s[i] ? large : other);
  }
  CHECK(infinite / double(s.size()) == doctest::Approx(1 / 16.0).epsilon(0.02));
  CHECK(large / double(s.size()) == doctest::Approx(1 / 1024.0).epsilon(0.13));
  CHECK(other == 0);

  p.operation = Operation::pv;
  const std::vector<float> weights = all(Tensor::p, Distribution::normal);
  CHECK(weights == all(Tensor::p, Distribution::outliers));
  double mean = 0, below_tenth = 0, outside = 0;
  for (float value : weights) {
    outside += value < 0 || value >= 1;
    mean += value / weights.size();
    below_tenth += value < 0.1f;
  }
  CHECK(outside == 0);
  CHECK(mean == doctest::Approx(0.5).epsilon(0.004));
  CHECK(below_tenth / weights.size() == doctest::Approx(0.1).epsilon(0.02));
}

TEST_CASE("data: the device holds the rows of S and P that the oracle sees, and poison else") {
  Problem p{.batch = 2, .heads = 3, .kv_heads = 3, .seq = 21, .kv_seq = 19};
  for (const Operation operation : {Operation::softmax, Operation::pv}) {
    for (DType dtype : {DType::fp32, DType::fp16, DType::bf16}) {
      for (bool causal : {true, false}) {
        p.operation = operation;
        p.dtype = dtype;
        p.causal = causal;
        CAPTURE(to_string(operation));
        CAPTURE(to_string(p));
        const Tensor tensor = operation == Operation::softmax ? Tensor::s : Tensor::p;
        const HostInputs inputs = make_inputs(p, Distribution::outliers, 3);
        DeviceBuffer buffer(p.score_elements() * bytes_of(dtype), "tensor");
        fill_on_device(p, tensor, inputs, buffer.data());
        std::vector<std::byte> found(buffer.size()), expected;
        buffer.read(found.data(), found.size());
        for (std::int64_t row = 0; row < p.q_rows(); ++row) {
          std::vector<std::byte> bytes = encode(dtype, input_row(p, tensor, inputs, row));
          const int visible = p.visible_keys(static_cast<int>(row % p.seq));
          std::fill(bytes.begin() + visible * bytes_of(dtype), bytes.end(), std::byte{0xff});
          expected.insert(expected.end(), bytes.begin(), bytes.end());
        }
        CHECK((found == expected));
      }
    }
  }
  p.operation = Operation::softmax;
  p.fp32_scores = true;
  const HostInputs inputs = make_inputs(p, Distribution::normal, 3);
  std::vector<float> row = input_row(p, Tensor::s, inputs, 5);
  p.fp32_scores = false;
  const std::vector<float> rounded = input_row(p, Tensor::s, inputs, 5);
  CHECK(row != rounded);
  for (float& value : row) value = round_to(p.dtype, value);
  CHECK(row == rounded);
}

TEST_CASE("data: every fp16 and bf16 value survives the round trip") {
  for (DType dtype : {DType::fp16, DType::bf16}) {
    int wrong = 0;
    for (int i = 0; i < 65536; ++i) {
      const auto element = static_cast<std::uint16_t>(i);
      const float value = widen(dtype, element);
      if (std::isnan(value)) {
        wrong += narrow(dtype, value) != 0x7fff;
      } else {
        wrong += narrow(dtype, value) != element || round_to(dtype, value) != value;
      }
    }
    CHECK(wrong == 0);
  }
}

// Conversion is monotonic, so what lies just below, on and just above every midpoint fixes it.
TEST_CASE("data: conversion goes to the nearest value, ties to even") {
  for (DType dtype : {DType::fp16, DType::bf16}) {
    const int infinity = dtype == DType::fp16 ? 0x7c00 : 0x7f80;
    int wrong = 0;
    for (int i = 0; i + 1 < infinity; ++i) {
      const double low = widen(dtype, i), high = widen(dtype, i + 1);
      const auto middle = static_cast<float>((low + high) / 2);  // exact: one more bit
      const int even = i % 2 == 0 ? i : i + 1;
      wrong += narrow(dtype, middle) != even;
      wrong += narrow(dtype, -middle) != (even | 0x8000);
      wrong += narrow(dtype, std::nextafter(middle, 0.0f)) != i;
      wrong += narrow(dtype, std::nextafter(middle, INFINITY)) != i + 1;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("data: the ends of fp16 and bf16") {
  CHECK(widen(DType::fp16, 0x0001) == 0x1p-24f);
  CHECK(widen(DType::fp16, 0x0400) == 0x1p-14f);
  CHECK(widen(DType::fp16, 0x7bff) == 65504.0f);
  CHECK(narrow(DType::fp16, 65519.0f) == 0x7bff);
  CHECK(narrow(DType::fp16, 65520.0f) == 0x7c00);
  CHECK(narrow(DType::fp16, -1e10f) == 0xfc00);
  CHECK(narrow(DType::fp16, 0x1p-25f) == 0);  // a tie, and zero is even
  CHECK(narrow(DType::fp16, -0.0f) == 0x8000);
  CHECK(widen(DType::bf16, 0x3f80) == 1.0f);
  CHECK(narrow(DType::bf16, std::numeric_limits<float>::max()) == 0x7f80);
  CHECK(narrow(DType::bf16, std::numeric_limits<float>::denorm_min()) == 0);
  CHECK(std::isinf(widen(DType::fp16, 0x7c00)));
  CHECK(std::isnan(widen(DType::fp16, 0x7c01)));
  CHECK(round_to(DType::fp32, 0.1f) == 0.1f);
}

TEST_CASE("data: poison stays recognisable when widened") {
  const std::uint32_t poison = 0xffffffff;
  CHECK(bits(decode(DType::fp32, &poison, 1)[0]) == 0xffffffff);
  CHECK(bits(decode(DType::fp16, &poison, 1)[0]) == 0xffffe000);
  CHECK(bits(decode(DType::bf16, &poison, 1)[0]) == 0xffff0000);
}
