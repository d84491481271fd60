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
  CHECK(refusal([&](Problem& p) {
          large_scores(p);
          p.operation = Operation::softmax;
          p.fp32_scores = true;
        }).find("S alone would take") != std::string::npos);
  const auto large_probabilities = [&](Problem& p) {
    large_scores(p);
    p.heads = p.kv_heads = 2;
  };
  CHECK(refusal(large_probabilities) == "");
  for (const Operation operation : {Operation::probabilities, Operation::pv}) {
    CHECK(refusal([&](Problem& p) {
            large_probabilities(p);
            p.operation = operation;
          }).find("P alone would take") != std::string::npos);
  }
}

TEST_CASE("problem: data types") {
  for (const DType dtype : kEveryDType) CHECK(parse_dtype(to_string(dtype)) == dtype);
  CHECK(bytes_of(DType::fp32) == 4);
  CHECK(bytes_of(DType::bf16) == 2);
  CHECK(bytes_of(DType::e5m2) == 1);
  CHECK_THROWS_WITH_AS(parse_dtype("int3"),
                       "--dtype int3 is not known: choose fp16, bf16, fp32, e4m3 or e5m2.", Error);
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

TEST_CASE("problem: what each operation reads and writes") {
  const struct {
    Operation operation;
    const char *name, *reads;
    int columns, visible;  // of row 0
    DType s, out;
    double inputs;  // bytes
  } expected[] = {
      {Operation::scores, "scores", "qk", 6, 3, DType::fp32, DType::fp32, 2 * (64 + 96)},
      {Operation::softmax, "softmax", "s", 6, 3, DType::bf16, DType::bf16, 2 * 24},
      {Operation::probabilities, "probabilities", "qk", 6, 3, DType::fp32, DType::bf16,
       2 * (64 + 96)},
      {Operation::pv, "pv", "vp", 16, 16, DType::fp32, DType::bf16, 2 * (96 + 24)},
      {Operation::attention, "attention", "qkv", 16, 16, DType::fp32, DType::bf16,
       2 * (64 + 2 * 96)},
  };
  for (const auto& e : expected) {
    CAPTURE(e.name);
    const Problem p{.operation = e.operation,
                    .heads = 1,
                    .kv_heads = 1,
                    .seq = 4,
                    .kv_seq = 6,
                    .head_dim = 16,
                    .dtype = DType::bf16};
    CHECK(to_string(p.operation) == std::string(e.name));
    std::string found;
    for (const auto& [tensor, letter] : {std::pair{Tensor::q, 'q'},
                                         {Tensor::k, 'k'},
                                         {Tensor::v, 'v'},
                                         {Tensor::s, 's'},
                                         {Tensor::p, 'p'}}) {
      if (reads(e.operation, tensor)) found += letter;
    }
    CHECK(found == e.reads);
    CHECK(p.out_columns() == e.columns);
    CHECK(p.visible_columns(0) == e.visible);
    CHECK(p.visible_columns(3) == e.columns);
    CHECK(p.score_dtype() == e.s);
    CHECK(p.out_dtype() == e.out);
    CHECK(p.out_bytes() == 4 * e.columns * bytes_of(e.out));
    CHECK(p.in_bytes() == e.inputs);
  }
  Problem inside{.operation = Operation::softmax, .dtype = DType::fp16, .fp32_scores = true};
  CHECK(inside.score_dtype() == DType::fp32);
  CHECK(inside.out_dtype() == DType::fp16);
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

  SUBCASE("the pipeline's steps: softmax is a matter of bytes, masked entries cost nothing") {
    const double q = 2 * 4 * 100 * 64, kv = 2 * 2 * 300 * 64, visible = 2 * 4 * area;
    const auto work = [&](Operation operation) {
      p.operation = operation;
      return minimum_work(p);
    };
    CHECK(work(Operation::softmax).flops == 0);
    CHECK(work(Operation::softmax).bytes == 4 * visible);
    CHECK(work(Operation::probabilities).flops == 2 * visible * 64);
    CHECK(work(Operation::probabilities).bytes == 2 * (q + kv + visible));
    CHECK(work(Operation::pv).flops == 2 * visible * 64);
    CHECK(work(Operation::pv).bytes == 2 * (visible + kv + q));
    p.fp32_scores = true;
    CHECK(work(Operation::softmax).bytes == 6 * visible);
  }
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
