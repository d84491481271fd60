#include "common/problem.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "common/error.hpp"

using namespace al;

namespace {

// The message of the usage error that `change` makes of a valid problem; empty: none.
template <typename Change>
std::string refusal(Change change) {
  Problem problem;
  change(problem);
  try {
    validate(problem);
  } catch (const Error& error) {
    CHECK(error.code == ExitCode::usage);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("problem: what is valid passes") {
  CHECK(refusal([](Problem&) {}) == "");
  for (int head_dim : {16, 32, 64, 128, 256}) {
    CHECK(refusal([&](Problem& p) { p.head_dim = head_dim; }) == "");
  }
  CHECK(refusal([](Problem& p) { p.seq = p.kv_seq = 1; }) == "");
  CHECK(refusal([](Problem& p) { p.kv_heads = 1; }) == "");
  CHECK(refusal([](Problem& p) { p.scale = -2; }) == "");
  CHECK(refusal([](Problem& p) { p.seq = p.kv_seq = 1 << 20; }) == "");
}

TEST_CASE("problem: a refusal says what was asked and what is allowed") {
  CHECK(refusal([](Problem& p) { p.seq = 0; }) ==
        "--seq 0 is not possible: it must be at least 1.");
  CHECK(refusal([](Problem& p) { p.batch = -3; }) ==
        "--batch -3 is not possible: it must be at least 1.");
  CHECK(refusal([](Problem& p) { p.kv_heads = 0; }) ==
        "--kv-heads 0 is not possible: it must be at least 1.");
  CHECK(refusal([](Problem& p) { p.head_dim = 63; }) ==
        "--head-dim 63 is not supported: choose 16, 32, 64, 128 or 256.");
  CHECK(refusal([](Problem& p) {
          p.heads = 6;
          p.kv_heads = 4;
        }) ==
        "--heads 6 cannot share --kv-heads 4: the number of query heads must be a multiple of the "
        "key/value heads.");
  CHECK(refusal([](Problem& p) { p.scale = std::numeric_limits<double>::quiet_NaN(); }) ==
        "--scale nan is not possible: it must be a finite number.");
}

TEST_CASE("problem: larger than an index holds") {
  constexpr int kLargest = std::numeric_limits<int>::max();
  CHECK(refusal([](Problem& p) {
          p.batch = kLargest;
          p.heads = p.kv_heads = 2;
        }) ==
        "--batch 2147483647 times --heads 2 is more than an index holds: at most 2147483647.");
  const auto huge = [](Problem& p) {
    p.batch = kLargest / 2;
    p.heads = p.kv_heads = 2;
    p.seq = p.kv_seq = kLargest;
  };
  CHECK(refusal(huge).find("Q alone would take 5.9e+20 bytes") != std::string::npos);
  // Q and K still fit, their product does not.
  const auto large_scores = [](Problem& p) {
    p.heads = p.kv_heads = 1;
    p.seq = p.kv_seq = kLargest;
  };
  CHECK(refusal(large_scores) == "");
  CHECK(refusal([&](Problem& p) {
          large_scores(p);
          p.operation = Operation::scores;
        }).find("S alone would take") != std::string::npos);
}

TEST_CASE("problem: data types") {
  for (DType dtype : {DType::fp32, DType::fp16, DType::bf16}) {
    CHECK(parse_dtype(to_string(dtype)) == dtype);
    CHECK(bytes_of(dtype) == (dtype == DType::fp32 ? 4 : 2));
  }
  CHECK_THROWS_WITH_AS(parse_dtype("int3"), "--dtype int3 is not known: choose fp16, bf16 or fp32.",
                       Error);
}

TEST_CASE("problem: causal is aligned bottom-right") {
  Problem p;
  p.seq = 4;
  const struct {
    int kv_seq, first, last;
  } expected[] = {{4, 1, 4}, {6, 3, 6}, {1, 0, 1}, {2, 0, 2}};
  for (const auto& [kv_seq, first, last] : expected) {
    p.kv_seq = kv_seq;
    CHECK(p.visible_keys(0) == first);
    CHECK(p.visible_keys(3) == last);
  }
  p.causal = false;
  CHECK(p.visible_keys(0) == p.kv_seq);
}

TEST_CASE("problem: least work") {
  Problem p{.batch = 2, .heads = 4, .kv_heads = 2, .seq = 100, .kv_seq = 300, .head_dim = 64};
  p.causal = false;
  CHECK(minimum_work(p).flops == 4.0 * 2 * 4 * 100 * 300 * 64);
  CHECK(minimum_work(p).bytes == 2.0 * (2 * (2 * 4 * 100 * 64) + 2 * (2 * 2 * 300 * 64)));
  p.causal = true;
  CHECK(minimum_work(p).flops == 4.0 * 2 * 4 * (100 * 300 - 100 * 100 / 2) * 64);
  p.operation = Operation::scores;
  const double area = 100 * 300 - 100 * 100 / 2;
  CHECK(minimum_work(p).flops == 2.0 * 2 * 4 * area * 64);
  CHECK(minimum_work(p).bytes == 2.0 * (2 * 4 * 100 * 64 + 2 * 2 * 300 * 64) + 4.0 * 2 * 4 * area);

  SUBCASE("the area is that of the visible scores, but for the width of the diagonal") {
    for (const auto& [seq, kv_seq] :
         {std::pair{100, 300}, std::pair{300, 100}, std::pair{200, 200}}) {
      p.seq = seq;
      p.kv_seq = kv_seq;
      double visible = 0;
      for (int i = 0; i < seq; ++i) visible += p.visible_keys(i);
      const double counted = minimum_work(p).flops / (2.0 * p.batch * p.heads * p.head_dim);
      CHECK(visible - counted == std::min(seq, kv_seq) / 2.0);
    }
  }
  SUBCASE("the paper's shape: 4 N^2 D H B, halved") {
    const Problem paper{
        .batch = 2, .heads = 16, .kv_heads = 16, .seq = 8192, .kv_seq = 8192, .head_dim = 128};
    CHECK(minimum_work(paper).flops == 4.0 * 8192 * 8192 * 128 * 16 * 2 / 2);
  }
}

TEST_CASE("problem: in words") {
  Problem p;
  CHECK(to_string(p) == "B1 H8 N1024 D64 fp16 causal");
  p.kv_heads = 2;
  p.kv_seq = 8192;
  p.seq = 1;
  p.dtype = DType::bf16;
  p.causal = false;
  CHECK(to_string(p) == "B1 H8 Hkv2 N1 Nkv8192 D64 bf16 full");
}
