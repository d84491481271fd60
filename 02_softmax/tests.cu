// Chapter 02 on a GPU or in the emulator: every kernel against the float64 oracle, and what the
// oracle's data do not hold: infinities, extreme scores, rows longer than registers.
#include <cmath>
#include <cstring>
#include <vector>

#include "02_softmax/softmax.cuh"
#include "02_softmax/stage.hpp"
#include "common/tests/stage_checks.hpp"

using namespace al;
using namespace al::softmax;

namespace {

constexpr int kSoftmaxes = 3;  // the first variants; the fourth is the pipeline

Problem softmax_problem(int rows, int columns, DType dtype, bool fp32_scores = false) {
  Problem p;
  p.operation = Operation::softmax;
  p.heads = p.kv_heads = 1;
  p.seq = rows;
  p.kv_seq = columns;
  p.dtype = dtype;
  p.causal = false;
  p.fp32_scores = fp32_scores;
  return p;
}

struct Result {
  std::vector<float> P, LSE;
};

// Runs `launch` on scores of our own, [rows, columns], -inf and NaN included.
Result run(void (*launch)(const Problem&, const Arguments&, Stream), const Problem& p,
           const std::vector<float>& scores) {
  const std::vector<std::byte> encoded = encode(p.score_dtype(), scores);
  DeviceBuffer S(encoded.size(), "S"), P(p.out_bytes(), "P"), LSE(p.q_rows() * 4, "LSE");
  S.write(encoded.data(), encoded.size());
  P.poison();
  LSE.poison();
  launch(p, {.s = S.data(), .out = P.data(), .lse = static_cast<float*>(LSE.data())}, nullptr);
  synchronize();
  std::vector<std::byte> raw(P.size());
  P.read(raw.data(), raw.size());
  Result result{decode(p.dtype, raw.data(), p.out_elements()), std::vector<float>(p.q_rows())};
  LSE.read(result.LSE.data(), LSE.size());
  return result;
}

// Compares with the definition in float64. `tolerance` is relative to the row's largest P.
void check_rows(const Problem& p, const std::vector<float>& scores, const Result& result) {
  const double tolerance = p.dtype == DType::fp32 ? 2e-6 : p.dtype == DType::fp16 ? 1e-3 : 6e-3;
  for (std::int64_t row = 0; row < p.q_rows(); ++row) {
    const int visible = p.visible_keys(static_cast<int>(row % p.seq));
    const float* s = scores.data() + row * p.kv_seq;
    double m = -INFINITY, l = 0;
    for (int j = 0; j < visible; ++j) m = std::max(m, double(s[j]));
    if (m == -INFINITY) {  // no key, or nothing but -inf
      CHECK(result.LSE[row] == -INFINITY);
    } else {
      for (int j = 0; j < visible; ++j) l += std::exp(s[j] - m);
      const double lse = m + std::log(l);
      CHECK(std::abs(result.LSE[row] - lse) <= 1e-6 * std::max(1.0, std::abs(lse)));
    }
    double worst = 0;
    int written_beyond = 0;
    for (int j = 0; j < p.kv_seq; ++j) {
      const float found = result.P[row * p.kv_seq + j];
      if (j >= visible) {
        written_beyond += !std::isnan(found);
        continue;
      }
      const double right = l > 0 ? std::exp(s[j] - m) / l : 0;
      const double error = std::abs(found - right) * (l > 0 ? l : 1);
      if (!(error <= worst)) worst = error;  // NaN counts as the worst
    }
    INFO(to_string(p) << ", row " << row);
    CHECK(worst <= tolerance);
    CHECK(written_beyond == 0);
  }
}

// Scores that no two columns share, between -4 and 4, exact in every dtype.
std::vector<float> spread_scores(const Problem& p) {
  std::vector<float> scores(p.score_elements());
  for (std::size_t i = 0; i < scores.size(); ++i) {
    scores[i] = static_cast<float>(i * 37 % 129) / 16 - 4;
  }
  return scores;
}

// Rows of S and P are types of their own: all pairs there are.
std::vector<Problem> with_every_type(Problem p) {
  std::vector<Problem> problems;
  for (const DType dtype : kAllDTypes) {
    for (const bool fp32_scores : {false, true}) {
      if (dtype == DType::fp32 && fp32_scores) continue;  // it is so anyway
      p.dtype = dtype;
      p.fp32_scores = fp32_scores;
      problems.push_back(p);
    }
  }
  return problems;
}

}  // namespace

TEST_CASE("every softmax is right on every awkward shape, in every pair of types") {
  for (const Problem& shape : awkward_shapes(Operation::softmax)) {
    for (const Problem& p : with_every_type(shape)) {
      for (int v = 0; v < kSoftmaxes; ++v) {
        check_variant(stage_02_softmax.variants[v], p, Distribution::normal);
      }
    }
  }
}

TEST_CASE("the pipeline is right on every awkward shape, in every dtype") {
  for (Problem p : awkward_shapes(Operation::probabilities)) {
    for (const DType dtype : kAllDTypes) {
      p.dtype = dtype;
      check_variant(stage_02_softmax.variants[3], p, Distribution::normal);
    }
  }
}

TEST_CASE("spikes of 20 sigma stay within budget") {
  for (const Problem& p : awkward_shapes(Operation::softmax)) {
    for (int v = 0; v < kSoftmaxes; ++v) {
      check_variant(stage_02_softmax.variants[v], p, Distribution::outliers);
    }
  }
  for (Problem p : awkward_shapes(Operation::probabilities)) {
    p.scale = 10;  // scores in the thousands
    check_variant(stage_02_softmax.variants[3], p, Distribution::outliers);
  }
}

// Nine rows begin at every offset from a 16-byte boundary there is when the length is odd.
TEST_CASE("row lengths around every boundary of vectors and tiles") {
  std::vector<int> lengths;
  for (int n = 1; n <= 34; ++n) lengths.push_back(n);
  for (const int edge : {64, 256, 512, 1024, 2048, 4096}) {
    for (const int around : {-9, -1, 0, 1, 9}) lengths.push_back(edge + around);
  }
  for (const int length : lengths) {
    for (const Problem& p : with_every_type(softmax_problem(9, length, DType::fp16))) {
      const std::vector<float> scores = spread_scores(p);
      for (int v = 0; v < kSoftmaxes; ++v) {
        INFO(stage_02_softmax.variants[v].name);
        check_rows(p, scores, run(stage_02_softmax.variants[v].launch, p, scores));
      }
    }
  }
}

TEST_CASE("rows longer than registers, and the tiles just below") {
  for (const int length : {8192, 8193, kLongestRowInRegisters, kLongestRowInRegisters + 1, 40003}) {
    for (const bool fp32_scores : {false, true}) {
      const Problem p = softmax_problem(2, length, DType::fp16, fp32_scores);
      const std::vector<float> scores = spread_scores(p);
      for (int v = 0; v < kSoftmaxes; ++v) {
        INFO(stage_02_softmax.variants[v].name);
        check_rows(p, scores, run(stage_02_softmax.variants[v].launch, p, scores));
      }
    }
  }
}

// What the mask hides is NaN here: one of them read, and the row is NaN; one written, and
// check_rows sees it.
TEST_CASE("causal rows end at the last visible key, wherever that falls") {
  for (const int columns : {40, 61, 128, 300}) {
    for (Problem p : with_every_type(softmax_problem(columns + 3, columns, DType::fp16))) {
      p.causal = true;
      std::vector<float> scores = spread_scores(p);
      for (int i = 0; i < p.seq; ++i) {
        for (int j = p.visible_keys(i); j < columns; ++j) scores[i * columns + j] = NAN;
      }
      for (int v = 0; v < kSoftmaxes; ++v) {
        INFO(stage_02_softmax.variants[v].name);
        check_rows(p, scores, run(stage_02_softmax.variants[v].launch, p, scores));
      }
    }
  }
}

TEST_CASE("minus infinity: single entries, whole threads, whole rows") {
  for (const int columns : {1, 7, 200, 1500, 20000}) {
    for (const Problem& p : with_every_type(softmax_problem(4, columns, DType::fp16))) {
      std::vector<float> scores = spread_scores(p);
      for (int j = 0; j < columns; ++j) {
        if (j % 3 == 0) scores[0 * columns + j] = -INFINITY;           // a third
        if (j != columns - 1) scores[1 * columns + j] = -INFINITY;     // all but the last
        if (j < columns / 2 + 1) scores[2 * columns + j] = -INFINITY;  // the first half
        scores[3 * columns + j] = -INFINITY;                           // all
      }
      for (int v = 0; v < kSoftmaxes; ++v) {
        INFO(stage_02_softmax.variants[v].name);
        check_rows(p, scores, run(stage_02_softmax.variants[v].launch, p, scores));
      }
    }
  }
}

TEST_CASE("scores of ten thousand, of either sign") {
  for (const int columns : {5, 333, 1024, 17000}) {
    for (const Problem& p : with_every_type(softmax_problem(4, columns, DType::fp32))) {
      std::vector<float> scores = spread_scores(p);
      for (int j = 0; j < columns; ++j) {
        scores[0 * columns + j] += 1e4f;
        scores[1 * columns + j] -= 1e4f;
        scores[2 * columns + j] *= j % 2 ? 2500.0f : -2500.0f;
        scores[3 * columns + j] = 1e4f;  // all equal: 1/N each
      }
      for (float& score : scores) score = round_to(p.score_dtype(), score);
      for (int v = 0; v < kSoftmaxes; ++v) {
        INFO(stage_02_softmax.variants[v].name);
        check_rows(p, scores, run(stage_02_softmax.variants[v].launch, p, scores));
      }
    }
  }
}

// A NaN among the scores is somebody's mistake upstream: it must come out, not vanish.
TEST_CASE("a NaN score makes its row NaN, and no other") {
  const Problem p = softmax_problem(3, 100, DType::fp16);
  std::vector<float> scores = spread_scores(p);
  scores[150] = NAN;
  for (int v = 0; v < kSoftmaxes; ++v) {
    INFO(stage_02_softmax.variants[v].name);
    const Result result = run(stage_02_softmax.variants[v].launch, p, scores);
    CHECK(std::isnan(result.P[100]));
    CHECK(std::isnan(result.P[199]));
    CHECK(std::isnan(result.LSE[1]));
    CHECK_FALSE(std::isnan(result.P[99]));
    CHECK_FALSE(std::isnan(result.P[200]));
  }
}

TEST_CASE("every tile and kind of store gives the same bits, twice") {
  const Problem p = softmax_problem(5, 1001, DType::fp16, true);
  std::vector<float> scores = spread_scores(p);
  const auto same = [&](auto* one, auto* other) {
    const Result a = run(one, p, scores), b = run(other, p, scores);
    return std::memcmp(a.P.data(), b.P.data(), a.P.size() * 4) == 0 &&
           std::memcmp(a.LSE.data(), b.LSE.data(), a.LSE.size() * 4) == 0;
  };
  for (int v = 0; v < kSoftmaxes; ++v) {
    CHECK(same(stage_02_softmax.variants[v].launch, stage_02_softmax.variants[v].launch));
  }
  CHECK(same(launch_one_pass_tile<4, 1024, 128, Store::plain>,
             launch_one_pass_tile<4, 1024, 128, Store::streaming>));
  for (auto* launch : {launch_one_pass_tile<2, 1024, 64>, launch_one_pass_tile<1, 1024, 32>,
                       launch_one_pass_tile<1, 4096, 512, Store::streaming>}) {
    check_rows(p, scores, run(launch, p, scores));
  }
}

TEST_CASE("what the stage does not do is refused by name") {
  Problem p = softmax_problem(1, 1, DType::fp16);
  p.operation = Operation::attention;
  CHECK(stage_02_softmax.variants[0].refuse(p, device()) == "it computes P = softmax(S) only");
  CHECK(stage_02_softmax.variants[3].refuse(p, device()) ==
        "it computes P = softmax(scale Q K^T) only");
  p.operation = Operation::softmax;
  p.batch = 4, p.heads = 1024, p.seq = 1 << 20;
  CHECK(stage_02_softmax.variants[1].refuse(p, device()).find("2^31 - 1") != std::string::npos);
}

TEST_CASE("a misaligned S or P is refused, not misread") {
  const Problem p = softmax_problem(1, 64, DType::fp16);
  DeviceBuffer S(256, "S"), P(256, "P");
  const Arguments misaligned{.s = static_cast<char*>(S.data()) + 2, .out = P.data()};
  for (int v = 0; v < kSoftmaxes; ++v) {
    CHECK_THROWS_WITH(stage_02_softmax.variants[v].launch(p, misaligned, nullptr),
                      "S and P must start at a multiple of 16 bytes.");
  }
}
