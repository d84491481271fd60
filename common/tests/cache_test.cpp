// What is beyond the plain problem: 8 bits with a scale a head, a length for each sequence, pages.
#include <cuda_fp8.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "common/check.hpp"
#include "common/data.hpp"
#include "common/error.hpp"
#include "common/reference.hpp"
#include "common/stage.hpp"

using namespace al;

namespace {

std::uint8_t narrow(DType dtype, float value) {
  return static_cast<std::uint8_t>(encode(dtype, {value})[0]);
}

Problem small() {
  return {.batch = 3,
          .heads = 4,
          .kv_heads = 2,
          .seq = 3,
          .kv_seq = 70,
          .head_dim = 16,
          .dtype = DType::fp16,
          .causal = true,
          .scale = 0.25};
}

std::vector<std::int64_t> every_row(const Problem& p) {
  std::vector<std::int64_t> rows(p.q_rows());
  for (std::int64_t row = 0; row < p.q_rows(); ++row) rows[row] = row;
  return rows;
}

void check_close(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i] != b[i]) CHECK(a[i] == doctest::Approx(b[i]).epsilon(1e-5));
  }
}

std::string usage_message(const Problem& p) {
  try {
    validate(p);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("8 bits: every code survives the round trip, and NaN is NaN") {
  for (const DType dtype : {DType::e4m3, DType::e5m2}) {
    int nans = 0;
    for (int code = 0; code < 256; ++code) {
      const auto byte = static_cast<std::uint8_t>(code);
      const float value = decode(dtype, &byte, 1)[0];
      nans += std::isnan(value);
      if (std::isfinite(value)) CHECK(narrow(dtype, value) == code);
    }
    CHECK(nans == (dtype == DType::e4m3 ? 2 : 6));
    const std::uint8_t poison = 0xff;
    CHECK(std::isnan(decode(dtype, &poison, 1)[0]));
  }
}

TEST_CASE("8 bits: conversions are CUDA's own") {
  int different = 0;
  const auto compare = [&](float x) {
    different += narrow(DType::e4m3, x) != __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
    different += narrow(DType::e5m2, x) != __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E5M2);
  };
  // The upper half of every bit pattern with lower halves that tie, and that lie beside a tie.
  for (std::uint32_t upper = 0; upper < 1 << 16; ++upper) {
    for (const std::uint32_t lower : {0u, 1u, 0xffffu})
      compare(std::bit_cast<float>(upper << 16 | lower));
  }
  CHECK(different == 0);
  for (int code = 0; code < 256; ++code) {
    const auto byte = static_cast<std::uint8_t>(code);
    __nv_fp8_e4m3 theirs;
    theirs.__x = byte;
    const float ours = decode(DType::e4m3, &byte, 1)[0];
    CHECK((ours == static_cast<float>(theirs) || std::isnan(ours)));
  }
}

TEST_CASE("8 bits with one factor: the largest of the tensor decides for all heads") {
  Problem p = small();
  p.dtype = DType::e4m3;
  const HostInputs each = make_inputs(p, Distribution::normal, 3);
  p.one_factor = true;
  const HostInputs one = make_inputs(p, Distribution::normal, 3);
  REQUIRE(one.q_scale.size() == each.q_scale.size());
  const float largest = *std::max_element(each.q_scale.begin(), each.q_scale.end());
  CHECK(*std::min_element(each.q_scale.begin(), each.q_scale.end()) < largest);
  for (const float scale : one.q_scale) CHECK(scale == largest);
}

TEST_CASE("8 bits: a head's largest element becomes the largest number") {
  Problem p = small();
  p.dtype = DType::e4m3;
  const HostInputs inputs = make_inputs(p, Distribution::normal, 3);
  p.dtype = DType::fp32;
  const HostInputs exact = make_inputs(p, Distribution::normal, 3);
  REQUIRE(inputs.q_scale.size() == 4);
  REQUIRE(inputs.k_scale.size() == 2);
  std::vector<float> largest(2);
  for (std::size_t i = 0; i < inputs.k.size(); ++i) {
    const int head = static_cast<int>(i / (p.kv_seq * p.head_dim) % p.kv_heads);
    largest[head] = std::max(largest[head], std::abs(inputs.k[i]));
    const float back = inputs.k[i] * inputs.k_scale[head];
    // To within half of the last place, of 3 bits or of the subnormals'.
    const float step = std::max(std::abs(exact.k[i]) / 16, inputs.k_scale[head] * 0x1p-10f);
    CHECK(std::abs(back - exact.k[i]) <= step * 1.0001f);
  }
  CHECK(largest == std::vector<float>{448, 448});
}

TEST_CASE("8 bits: attention of what the stored elements stand for") {
  for (const bool both : {false, true}) {
    Problem p = small();
    (both ? p.dtype : p.kv_dtype.emplace()) = DType::e4m3;
    const HostInputs inputs = make_inputs(p, Distribution::normal, 5);
    CHECK(inputs.q_scale.empty() != both);

    HostInputs meant = inputs;
    const auto multiply = [](std::vector<float>& values, std::vector<float>& scale, int rows) {
      for (std::size_t i = 0; i < values.size() && !scale.empty(); ++i) {
        values[i] *= scale[i / (rows * 16) % scale.size()];
      }
      scale.clear();
    };
    multiply(meant.q, meant.q_scale, p.seq);
    multiply(meant.k, meant.k_scale, p.kv_seq);
    multiply(meant.v, meant.v_scale, p.kv_seq);
    Problem plain = p;
    plain.dtype = DType::fp32;
    plain.kv_dtype.reset();
    const ReferenceRows a = reference(p, inputs, every_row(p));
    const ReferenceRows b = reference(plain, meant, every_row(p));
    check_close(a.exact, b.exact);
    check_close(a.exact_lse, b.exact_lse);
    check_close(a.row_scale, b.row_scale);

    // The plain implementation is itself within its budget, and not by much where P has 8 bits.
    const ErrorReport error = compare(p, a, a.plain, a.plain_lse);
    CHECK_MESSAGE(error.ok, error.why);
    CHECK(error.scaled > (both ? 1e-3 : 1e-5));
    CHECK(error.budget < (both ? 0.3 : 0.01));
    CHECK(p.out_dtype() == DType::fp16);
  }
}

TEST_CASE("lengths: each sequence is a problem of its own") {
  Problem p = small();
  p.kv_len = {70, 0, 2};  // all keys, none, fewer than queries
  const HostInputs inputs = make_inputs(p, Distribution::normal, 5);
  const ReferenceRows all = reference(p, inputs, every_row(p));
  const std::size_t rows = p.heads * p.seq;
  for (int b = 0; b < p.batch; ++b) {
    if (p.kv_len[b] == 0) {
      for (std::size_t r = b * rows; r < (b + 1) * rows; ++r) {
        CHECK(all.exact_lse[r] == -std::numeric_limits<double>::infinity());
        CHECK(all.exact[r * 16] == 0);
      }
      continue;
    }
    Problem one = p;
    one.batch = 1;
    one.kv_len.clear();
    one.kv_seq = p.kv_len[b];
    HostInputs part;
    part.q.assign(&inputs.q[b * rows * 16], &inputs.q[b * rows * 16] + rows * 16);
    for (int h = 0; h < p.kv_heads; ++h) {
      const std::size_t first = std::size_t(b * p.kv_heads + h) * p.kv_seq * 16;
      const std::size_t count = std::size_t(one.kv_seq) * 16;
      part.k.insert(part.k.end(), &inputs.k[first], &inputs.k[first] + count);
      part.v.insert(part.v.end(), &inputs.v[first], &inputs.v[first] + count);
    }
    const ReferenceRows alone = reference(one, part, every_row(one));
    for (std::size_t r = 0; r < rows; ++r) CHECK(alone.exact_lse[r] == all.exact_lse[b * rows + r]);
    for (std::size_t i = 0; i < rows * 16; ++i)
      CHECK(alone.exact[i] == all.exact[b * rows * 16 + i]);
  }
  // Work: 70 + 0 + 2 keys; causal hides 3 of 210, and 3 of 6, by the area under the diagonal.
  CHECK(minimum_work(p).flops == 4 * 4 * 16 * (210 - 4.5 + (6 - 4)));
  CHECK(minimum_work(p).bytes == 2 * (p.q_elements() + 72 * 2 * 16) * 2);
}

TEST_CASE("pages: shuffled, each key in its place, NaN where no key is") {
  Problem p = small();
  p.kv_len = {70, 33, 0};
  for (const int page_size : {0, 16, 64}) {
    p.page_size = page_size;
    const HostInputs inputs = make_inputs(p, Distribution::normal, 1);
    const std::vector<int> table = make_page_table(p, 1);
    const std::vector<float> cache =
        decode(p.dtype, cache_bytes(p, inputs.k, table).data(), p.cache_elements());
    CHECK(table.size() == std::size_t(3 * p.max_pages()));
    std::multiset<int> used;
    bool in_order = true;
    std::size_t keys = 0;
    for (int b = 0; b < p.batch; ++b) {
      for (int j = 0; j < p.kv_len[b]; ++j) {
        for (int h = 0; h < p.kv_heads; ++h, ++keys) {
          std::size_t row = (b * p.kv_heads + h) * p.kv_seq + j;
          const std::size_t logical = row;
          if (page_size > 0) {
            const int page = table[b * p.max_pages() + j / page_size];
            row = (page * p.kv_heads + h) * page_size + j % page_size;
          }
          CHECK(std::equal(&cache[row * 16], &cache[row * 16] + 16, &inputs.k[logical * 16]));
        }
      }
      for (int page = 0; page < p.max_pages(); ++page) {
        const int entry = table[b * p.max_pages() + page];
        CHECK((entry >= 0) == (page * page_size < p.kv_len[b]));
        if (entry >= 0) used.insert(entry);
        if (entry >= 0 && page > 0)
          in_order = in_order && entry == table[b * p.max_pages() + page - 1] + 1;
      }
    }
    CHECK(std::set<int>(used.begin(), used.end()).size() == used.size());
    if (page_size == 16) CHECK(!in_order);
    CHECK(std::ranges::count_if(cache, [](float x) { return std::isnan(x); }) ==
          std::ptrdiff_t(cache.size() - keys * 16));
    CHECK(p.in_bytes() == 2 * (inputs.q.size() + 2 * cache.size()));
  }
}

TEST_CASE("beyond the plain problem: what is not possible, and in words") {
  Problem p = small();
  p.kv_len = {1, 2};
  CHECK(usage_message(p) == "--kv-len names 2 lengths for --batch 3: give one for each.");
  p.kv_len = {1, 2, 71};
  CHECK(usage_message(p) == "--kv-len 71 is not possible: it must be from 0 to --kv-seq 70.");
  p.kv_len = {0, 2, 70};
  p.page_size = 48;
  CHECK(usage_message(p) == "--page-size 48 is not supported: choose 16, 32, 64, 128 or 256 keys.");
  p.page_size = 64;
  p.kv_dtype = DType::e4m3;
  CHECK(usage_message(p) == "");
  CHECK(to_string(p) == "B3 H4 Hkv2 N3 Nkv70 D16 fp16 causal kv e4m3 keys 0–70 pages of 64");
}

TEST_CASE("a variant refuses what it does not say that it takes") {
  Variant variant{.name = "plain",
                  .idea = "",
                  .prior = nullptr,
                  .operation = Operation::attention,
                  .refuse = [](const Problem&, const DeviceInfo&) { return std::string("own"); },
                  .workspace = nullptr,
                  .cost = nullptr,
                  .launch = nullptr};
  const DeviceInfo device;
  Problem p = small();
  CHECK(refusal(variant, p, device) == "own");
  const auto check = [&](bool Features::*feature, const char* message) {
    CHECK(refusal(variant, p, device) == message);
    variant.features.*feature = true;
    CHECK(refusal(variant, p, device) == "own");
  };
  p.page_size = 16;
  check(&Features::pages, "it does not take K and V in pages (--page-size)");
  p.kv_len = {1, 2, 3};
  check(&Features::kv_len, "it takes sequences of one length only (--kv-len)");
  p.kv_dtype = DType::e4m3;
  check(&Features::kv_dtype, "it takes K and V in Q's dtype only (--kv-dtype e4m3)");
  p.dtype = DType::e4m3;
  check(&Features::fp8, "it does not take 8-bit inputs (--dtype e4m3)");
}
