// The checker is checked: a small fused attention with a switch for each classic mistake. Right,
// it must pass; with a mistake that makes a difference, it must fail. `-s -tc="check:*"` prints the
// figures that docs/numerics.md shows.
#include "common/check.hpp"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>

using namespace al;

namespace {

constexpr int kBlockN = 32;  // keys in a tile
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
const float kPoison = std::bit_cast<float>(0xffffffffu);

enum class Mutant {
  none,
  last_tile_dropped,
  no_rescale,
  divided_twice,
  wrong_scale,      // the default of another head dim
  mask_off_by_one,  // row i masked like row i + 1: one key too many
  mask_top_left,
  padding_scores_zero,  // keys beyond Nkv, loaded as zeros, are scored 0 instead of -inf
  wrong_kv_head,        // head h reads h % Hkv instead of h / group
};

const char* to_string(Mutant mutant) {
  switch (mutant) {
    case Mutant::none:
      return "(right)";
    case Mutant::last_tile_dropped:
      return "last key tile dropped";
    case Mutant::no_rescale:
      return "no rescale when the maximum moves";
    case Mutant::divided_twice:
      return "divided by l twice";
    case Mutant::wrong_scale:
      return "scale of another head dim";
    case Mutant::mask_off_by_one:
      return "causal mask one key too wide";
    case Mutant::mask_top_left:
      return "causal mask aligned top-left";
    case Mutant::padding_scores_zero:
      return "keys beyond Nkv scored 0";
    case Mutant::wrong_kv_head:
      return "GQA: h % Hkv instead of h / group";
  }
  return "?";
}

constexpr Mutant kMutants[] = {Mutant::last_tile_dropped,   Mutant::no_rescale,
                               Mutant::divided_twice,       Mutant::wrong_scale,
                               Mutant::mask_off_by_one,     Mutant::mask_top_left,
                               Mutant::padding_scores_zero, Mutant::wrong_kv_head};

// Does the mistake change the result of this problem at all?
bool matters(Mutant mutant, const Problem& p) {
  switch (mutant) {
    case Mutant::none:
      return false;
    // Half of the rows have a second tile, so that some maximum moves in it.
    case Mutant::no_rescale:
      return p.visible_keys(p.seq / 2) > kBlockN;
    case Mutant::last_tile_dropped:
      return true;
    case Mutant::divided_twice:
    case Mutant::wrong_scale:
      return p.visible_keys(p.seq - 1) > 1;
    case Mutant::mask_off_by_one:
      return p.causal && p.seq > 1;
    case Mutant::mask_top_left:
      return p.causal && p.seq != p.kv_seq;
    case Mutant::padding_scores_zero:
      return !p.causal && p.kv_seq % kBlockN != 0;
    case Mutant::wrong_kv_head:
      return p.kv_heads > 1 && p.group() > 1;
  }
  return false;
}

struct Output {
  std::vector<float> o, lse;
};

// Fused attention as chapter 05 will have it: tiles of keys, running maximum and sum, P rounded
// to the input's dtype before it meets V, one division at the end.
Output fused(const Problem& p, const HostInputs& in, Mutant mutant = Mutant::none) {
  const int d_size = p.head_dim;
  Output output{std::vector<float>(p.q_elements()), std::vector<float>(p.q_rows())};
  float scale = p.scale;
  if (mutant == Mutant::wrong_scale) scale *= std::sqrt(2.0f);
  int tiles = (p.kv_seq + kBlockN - 1) / kBlockN;
  if (mutant == Mutant::last_tile_dropped) --tiles;

  for (std::int64_t row = 0; row < p.q_rows(); ++row) {
    const int i = row % p.seq;
    const int head = row / p.seq % p.heads;
    const int batch = row / p.seq / p.heads;
    const int kv_head = mutant == Mutant::wrong_kv_head ? head % p.kv_heads : head / p.group();
    const std::int64_t kv = (std::int64_t{batch} * p.kv_heads + kv_head) * p.kv_seq * d_size;

    int visible = p.visible_keys(i);
    if (mutant == Mutant::mask_off_by_one && p.causal) visible = p.visible_keys(i + 1);
    if (mutant == Mutant::mask_top_left && p.causal) visible = std::min(i + 1, p.kv_seq);

    float m = -kInfinity, l = 0;
    std::vector<float> acc(d_size);
    for (int tile = 0; tile < tiles; ++tile) {
      float s[kBlockN];
      float tile_max = m;
      for (int n = 0; n < kBlockN; ++n) {
        const int j = tile * kBlockN + n;
        s[n] = -kInfinity;
        if (j < visible) {
          float dot = 0;
          for (int d = 0; d < d_size; ++d) {
            dot += in.q[row * d_size + d] * in.k[kv + std::int64_t{j} * d_size + d];
          }
          s[n] = scale * dot;
        }
        if (mutant == Mutant::padding_scores_zero && j >= p.kv_seq && !p.causal) s[n] = 0;
        tile_max = std::max(tile_max, s[n]);
      }
      if (tile_max == -kInfinity) continue;
      const float rescale = mutant == Mutant::no_rescale ? 1 : std::exp(m - tile_max);
      l *= rescale;
      for (float& a : acc) a *= rescale;
      m = tile_max;
      for (int n = 0; n < kBlockN; ++n) {
        const float weight = std::exp(s[n] - m);
        l += weight;
        const int j = tile * kBlockN + n;
        for (int d = 0; d < d_size && j < visible; ++d) {
          acc[d] += round_to(p.dtype, weight) * in.v[kv + std::int64_t{j} * d_size + d];
        }
      }
    }
    for (int d = 0; d < d_size; ++d) {
      float o = l == 0 ? 0 : acc[d] / l;
      if (mutant == Mutant::divided_twice && l != 0) o /= l;
      output.o[row * d_size + d] = round_to(p.dtype, o);
    }
    output.lse[row] = m + std::log(l);
  }
  return output;
}

std::vector<std::int64_t> all_rows(const Problem& p) {
  std::vector<std::int64_t> rows(p.q_rows());
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

std::vector<Problem> problems(Operation operation) {
  const struct {
    int heads, kv_heads, seq, kv_seq, head_dim;
  } shapes[] = {
      {2, 2, 64, 64, 64},   {4, 2, 33, 33, 32},   {4, 2, 77, 150, 64},
      {1, 1, 100, 40, 128}, {8, 4, 1, 100, 64},   {1, 1, 5, 3, 16},
      {2, 1, 1, 1, 16},     {1, 1, 70, 129, 256}, {1, 1, 200, 200, 64},
  };
  std::vector<Problem> all;
  for (const auto& s : shapes) {
    for (bool causal : {true, false}) {
      for (DType dtype : {DType::fp16, DType::bf16, DType::fp32}) {
        all.push_back({.operation = operation,
                       .batch = 2,
                       .heads = s.heads,
                       .kv_heads = s.kv_heads,
                       .seq = s.seq,
                       .kv_seq = s.kv_seq,
                       .head_dim = s.head_dim,
                       .dtype = dtype,
                       .causal = causal,
                       .scale = 1 / std::sqrt(double(s.head_dim))});
      }
    }
  }
  return all;
}

struct Fixture {
  Problem p;
  HostInputs in;
  ReferenceRows exact;
  Output right;

  explicit Fixture(const Problem& problem, Distribution data = Distribution::normal)
      : p(problem), in(make_inputs(p, data, 5)), exact(reference(p, in, all_rows(p))) {
    if (p.operation == Operation::attention) right = fused(p, in);
  }
  ErrorReport check(const Output& output) const { return compare(p, exact, output.o, output.lse); }
};

Problem causal_problem(DType dtype = DType::fp16) {
  return {.batch = 2,
          .heads = 4,
          .kv_heads = 2,
          .seq = 70,
          .kv_seq = 130,
          .head_dim = 64,
          .dtype = dtype,
          .causal = true,
          .scale = 0.125};
}

// The scores as fp32 FMAs in the order of d, which is how a CUDA-core kernel does it.
std::vector<float> right_scores(const Problem& p, const HostInputs& in, int d_from = 0) {
  std::vector<float> s(p.score_elements(), kPoison);
  for (std::int64_t row = 0; row < p.q_rows(); ++row) {
    const std::int64_t head = row / p.seq;
    const std::int64_t kv = head / p.group() * p.kv_seq;  // B and Hq divide alike by the group
    for (int j = 0; j < p.visible_keys(row % p.seq); ++j) {
      float dot = 0;
      for (int d = d_from; d < p.head_dim; ++d) {
        dot = std::fma(in.q[row * p.head_dim + d], in.k[(kv + j) * p.head_dim + d], dot);
      }
      s[row * p.kv_seq + j] = static_cast<float>(p.scale) * dot;
    }
  }
  return s;
}

}  // namespace

TEST_CASE("check: a right attention passes, over shapes, dtypes, masks and data") {
  for (const Problem& p : problems(Operation::attention)) {
    for (Distribution data : {Distribution::normal, Distribution::outliers}) {
      CAPTURE(to_string(p));
      const Fixture f(p, data);
      const ErrorReport report = f.check(f.right);
      CHECK(report.why == "");
      CHECK(report.ok);
      CHECK(report.scaled <= report.budget);
      CHECK(compare(p, f.exact, f.exact.plain, f.exact.plain_lse).ok);
    }
  }
}

TEST_CASE("check: every mistake fails wherever it makes a difference") {
  for (const Problem& p : problems(Operation::attention)) {
    const Fixture f(p);
    for (Mutant mutant : kMutants) {
      if (!matters(mutant, p)) continue;
      CAPTURE(to_string(p));
      CAPTURE(to_string(mutant));
      const Output wrong = fused(p, f.in, mutant);
      // O alone gives it away, and the reason names an element.
      const ErrorReport report = compare(p, f.exact, wrong.o);
      CHECK_FALSE(report.ok);
      CHECK(report.scaled > report.budget);
      CHECK(report.why.find("expected") != std::string::npos);
    }
  }
}

TEST_CASE("check: all zeros") {
  for (const Problem& p : problems(Operation::attention)) {
    CAPTURE(to_string(p));
    const Fixture f(p);
    CHECK_FALSE(compare(p, f.exact, std::vector<float>(p.q_elements())).ok);
  }
}

TEST_CASE("check: one bad element among thousands is named") {
  for (DType dtype : {DType::fp16, DType::bf16, DType::fp32}) {
    const Fixture f(causal_problem(dtype));
    const std::size_t row = (1 * 4 + 3) * 70 + 12;
    const std::size_t at = row * 64 + 17;
    const auto why = [&](float value) {
      Output output = f.right;
      output.o[at] = value;
      const ErrorReport report = f.check(output);
      CHECK_FALSE(report.ok);
      return report.why;
    };
    const std::string place = fmt::format("row {} (batch 1, head 3, query 12), column 17: ", row);
    const std::string expected = fmt::format(", expected {:.6g}", f.exact.exact[at]);
    CHECK(why(kNan) == place + "got nan" + expected);
    CHECK(why(kInfinity) == place + "got inf" + expected);
    CHECK(why(decode(dtype, &kPoison, 1)[0]) == place + "was never written" + expected);
    const float wrong = round_to(dtype, f.right.o[at] + 0.5f * float(f.exact.row_scale[row]));
    CHECK(why(wrong).find(place + fmt::format("got {:.6g}", wrong) + expected + " (off by ") == 0);
  }
}

TEST_CASE("check: a NaN never counts as a small error") {
  const Fixture f(causal_problem());
  Output output = f.right;
  output.o.back() = kNan;
  const ErrorReport report = f.check(output);
  CHECK(std::isinf(report.scaled));
  CHECK(std::isinf(report.max_abs));
  CHECK(std::isinf(report.row_rel_l2));
}

TEST_CASE("check: rows without keys are exactly O = 0, LSE = -inf") {
  Problem p = causal_problem();
  p.kv_seq = 40;  // queries 0 to 29 see nothing
  const Fixture f(p);
  REQUIRE(f.check(f.right).ok);
  REQUIRE(f.right.lse[0] == -kInfinity);
  Output output = f.right;
  output.o[3] = 0x1p-24f;
  CHECK(f.check(output).why.find("row 0 (batch 0, head 0, query 0), column 3: got 5.9") == 0);
  output = f.right;
  output.lse[29] = -1e30f;
  CHECK(f.check(output).why.find("LSE of row 29 (batch 0, head 0, query 29): got -1e+30") == 0);
  output.lse[29] = kNan;
  CHECK_FALSE(f.check(output).ok);
}

TEST_CASE("check: the LSE has a tolerance of its own") {
  const Fixture f(causal_problem());
  Output output = f.right;
  output.lse[100] += 1e-4f;
  const ErrorReport report = f.check(output);
  CHECK_FALSE(report.ok);
  CHECK(report.lse_max_abs == doctest::Approx(1e-4).epsilon(0.05));
  CHECK(report.why.find("LSE of row 100 (batch 0, head 1, query 30): got") == 0);
  output.lse[100] = kPoison;
  CHECK(f.check(output).why.find("query 30): was never written") != std::string::npos);
  output.lse[100] = f.right.lse[100] * 0.6931472f;  // log2 taken for the natural logarithm
  CHECK_FALSE(f.check(output).ok);
  CHECK(compare(f.p, f.exact, f.right.o).lse_max_abs == 0);  // no LSE asked, none checked
}

TEST_CASE("check: the LSE finds one key too many where O cannot") {
  // One query over 4096 keys: the key that leaks weighs 1/4096 of the row.
  const Problem p{.heads = 1,
                  .kv_heads = 1,
                  .seq = 2,
                  .kv_seq = 4096,
                  .head_dim = 64,
                  .dtype = DType::bf16,
                  .causal = true,
                  .scale = 0.125};
  const Fixture f(p);
  REQUIRE(f.check(f.right).ok);
  const Output wrong = fused(p, f.in, Mutant::mask_off_by_one);
  CHECK(compare(p, f.exact, wrong.o).ok);
  const ErrorReport report = f.check(wrong);
  CHECK_FALSE(report.ok);
  INFO(fmt::format("O: scaled {:.2g} of {:.2g}; LSE: {:.2g}", report.scaled, report.budget,
                   report.lse_max_abs));
  CHECK(report.lse_max_abs > 1e-5);
}

TEST_CASE("check: a result of another size is a programmer's error") {
  const Fixture f(causal_problem());
  CHECK_THROWS_AS(compare(f.p, f.exact, std::vector<float>(3)), std::invalid_argument);
  CHECK_THROWS_AS(compare(f.p, f.exact, f.right.o, std::vector<float>(3)), std::invalid_argument);
}

TEST_CASE("check: scores, right and wrong") {
  for (const Problem& p : problems(Operation::scores)) {
    CAPTURE(to_string(p));
    const Fixture f(p);
    const std::vector<float> right = right_scores(p, f.in);
    // What is masked stays unwritten, and that is allowed.
    const ErrorReport report = compare(p, f.exact, right);
    CHECK(report.why == "");
    CHECK(compare(p, f.exact, right_scores(p, make_inputs(p, Distribution::normal, 6))).ok ==
          false);

    const auto fails = [&](const std::vector<float>& s) { return !compare(p, f.exact, s).ok; };
    std::vector<float> wrong = right;
    for (float& s : wrong) s *= 1.001f;
    CHECK(fails(wrong));                             // a wrong scale
    CHECK(fails(right_scores(p, f.in, 8)));          // the first eight columns of Q and K dropped
    CHECK(fails(std::vector<float>(wrong.size())));  // all zeros

    if (p.seq >= 32 && p.kv_seq >= 32 && !p.causal) {
      wrong = right;  // one 32 x 32 tile transposed
      for (int i = 0; i < 32; ++i) {
        for (int j = 0; j < 32; ++j) wrong[i * p.kv_seq + j] = right[j * p.kv_seq + i];
      }
      CHECK(fails(wrong));
    }

    // One element, the last row's largest: a relative error of 1e-3, a NaN, never written.
    const auto last_row = right.end() - p.kv_seq;
    const auto at =
        std::max_element(last_row, last_row + p.visible_keys(p.seq - 1)) - right.begin();
    for (float value : {right[at] * 1.001f, kNan, kPoison, kInfinity}) {
      wrong = right;
      wrong[at] = value;
      CHECK(fails(wrong));
    }
  }
}

TEST_CASE("check: scores rounded to fp16 or computed from TF32 inputs fail") {
  Problem p = causal_problem(DType::fp32);
  p.operation = Operation::scores;
  const Fixture f(p);
  std::vector<float> s = right_scores(p, f.in);
  for (float& value : s) value = round_to(DType::fp16, value);
  const ErrorReport stored = compare(p, f.exact, s);

  HostInputs tf32 = f.in;  // 10 bits of mantissa
  for (auto* tensor : {&tf32.q, &tf32.k}) {
    for (float& value : *tensor) {
      value = std::bit_cast<float>((std::bit_cast<std::uint32_t>(value) + 0x1000) & 0xffffe000u);
    }
  }
  const ErrorReport computed = compare(p, f.exact, right_scores(p, tf32));
  INFO(fmt::format("budget {:.2g}; stored in fp16: {:.2g}; from TF32 inputs: {:.2g}", stored.budget,
                   stored.scaled, computed.scaled));
  CHECK_FALSE(stored.ok);
  CHECK_FALSE(computed.ok);
}

namespace {

enum class SoftmaxMutant {
  none,
  last_tile_dropped,    // of 32 keys: not in the sum, and P = 0
  no_maximum,           // exp(s) as it is
  no_rescale,           // the running sum is not scaled when the maximum moves
  not_divided,          // P = exp(s - m)
  sum_of_neighbour,     // divided by the sum of the row before
  mask_off_by_one,      // the sum has one key too many
  infinite_row_is_nan,  // -inf - -inf
};
constexpr SoftmaxMutant kSoftmaxMutants[] = {
    SoftmaxMutant::last_tile_dropped,  SoftmaxMutant::no_maximum,
    SoftmaxMutant::no_rescale,         SoftmaxMutant::not_divided,
    SoftmaxMutant::sum_of_neighbour,   SoftmaxMutant::mask_off_by_one,
    SoftmaxMutant::infinite_row_is_nan};

// Softmax as chapter 02 has it: an online sum, and P times the reciprocal of it.
Output softmaxed(const Problem& p, const HostInputs& in, SoftmaxMutant mutant) {
  Output output{std::vector<float>(p.score_elements(), kPoison), std::vector<float>(p.q_rows())};
  float neighbour = 1;
  for (std::int64_t row = 0; row < p.q_rows(); ++row) {
    const std::vector<float> s = input_row(p, Tensor::s, in, row);
    const int visible = p.visible_keys(row % p.seq);
    int counted = visible;
    if (mutant == SoftmaxMutant::last_tile_dropped) counted = std::max(0, visible - 1) / 32 * 32;
    if (mutant == SoftmaxMutant::mask_off_by_one) counted = std::min(visible + 1, p.kv_seq);
    float m = -kInfinity, l = 0;
    for (int j = 0; j < counted; ++j) {
      const float larger = std::max(m, s[j]);
      if (larger == -kInfinity && mutant != SoftmaxMutant::infinite_row_is_nan) continue;
      if (mutant != SoftmaxMutant::no_rescale) l *= std::exp(m - larger);
      l += std::exp(s[j] - larger);
      m = larger;
    }
    output.lse[row] = m + std::log(l);
    if (mutant == SoftmaxMutant::no_maximum) {
      m = l = 0;
      for (int j = 0; j < counted; ++j) l += std::exp(s[j]);
    }
    float divisor = l;
    if (mutant == SoftmaxMutant::not_divided) divisor = 1;
    if (mutant == SoftmaxMutant::sum_of_neighbour) std::swap(divisor, neighbour);
    for (int j = 0; j < visible; ++j) {
      float weight = j < counted ? std::exp(s[j] - m) / divisor : 0;
      if (m == -kInfinity && mutant != SoftmaxMutant::infinite_row_is_nan) weight = 0;
      output.o[row * p.kv_seq + j] = round_to(p.dtype, weight);
    }
  }
  return output;
}

Problem softmax_problem(DType dtype) {
  Problem p = causal_problem(dtype);
  p.operation = Operation::softmax;
  return p;
}

}  // namespace

TEST_CASE("check: a right softmax passes, with -inf among its scores, LSE and all") {
  for (const Problem& p : problems(Operation::softmax)) {
    for (Distribution data : {Distribution::normal, Distribution::outliers}) {
      CAPTURE(to_string(p));
      const Fixture f(p, data);
      const ErrorReport report = f.check(softmaxed(p, f.in, SoftmaxMutant::none));
      CHECK(report.why == "");
      CHECK(compare(p, f.exact, f.exact.plain, f.exact.plain_lse).ok);
      CHECK_FALSE(compare(p, f.exact, std::vector<float>(p.score_elements())).ok);
    }
  }
}

TEST_CASE("check: every mistake in a softmax fails, by P alone") {
  for (DType dtype : {DType::fp16, DType::bf16, DType::fp32}) {
    for (SoftmaxMutant mutant : kSoftmaxMutants) {
      CAPTURE(static_cast<int>(mutant));
      Problem p = softmax_problem(dtype);
      if (mutant == SoftmaxMutant::infinite_row_is_nan) p.kv_seq = p.seq;  // a row of one key
      const Fixture f(p, Distribution::outliers);
      const Output wrong = softmaxed(p, f.in, mutant);
      CHECK_FALSE(compare(p, f.exact, wrong.o).ok);
    }
  }
}

TEST_CASE("check: of P, one element that was not written, a NaN, a key too many") {
  const Problem p = softmax_problem(DType::fp16);
  const Fixture f(p, Distribution::outliers);
  Output output = softmaxed(p, f.in, SoftmaxMutant::none);
  REQUIRE(f.check(output).ok);
  for (float value : {kNan, decode(p.dtype, &kPoison, 1)[0], 1.0f}) {
    std::vector<float> wrong = output.o;
    wrong[3 * 130 + 40] = value;
    CHECK(compare(p, f.exact, wrong).why.find("query 3), column 40: ") != std::string::npos);
    wrong = output.o;
    wrong[3 * 130 + 64] = value;  // row 3 sees 64 keys: this one is nobody's business
    CHECK(compare(p, f.exact, wrong).ok);
  }
  output.lse[7] += 1e-4f;
  CHECK(f.check(output).why.find("LSE of row 7") == 0);
}

TEST_CASE("check: the steps of the pipeline, right and wrong") {
  for (const Problem& attention : problems(Operation::attention)) {
    CAPTURE(to_string(attention));
    Problem p = attention;
    p.operation = Operation::probabilities;
    const Fixture f(p);
    const std::vector<float> s = right_scores(p, f.in);
    const auto softmax_of = [&](const std::vector<float>& scores) {
      std::vector<float> result(p.score_elements(), kPoison);
      for (std::int64_t row = 0; row < p.q_rows(); ++row) {
        const auto first = scores.begin() + row * p.kv_seq;
        const int visible = p.visible_keys(row % p.seq);
        if (visible == 0) continue;
        const float m = *std::max_element(first, first + visible);
        float l = 0;
        for (int j = 0; j < visible; ++j) l += std::exp(first[j] - m);
        for (int j = 0; j < visible; ++j) {
          result[row * p.kv_seq + j] = round_to(p.dtype, std::exp(first[j] - m) * (1 / l));
        }
      }
      return result;
    };
    CHECK(compare(p, f.exact, softmax_of(s)).why == "");
    if (p.visible_keys(p.seq - 1) > 1) {
      std::vector<float> scaled = s;
      for (float& score : scaled) score *= std::sqrt(2.0f);
      CHECK_FALSE(compare(p, f.exact, softmax_of(scaled)).ok);
      CHECK_FALSE(compare(p, f.exact, softmax_of(right_scores(p, f.in, 8))).ok);
    }
  }
  for (const Problem& p : problems(Operation::pv)) {
    CAPTURE(to_string(p));
    const Fixture f(p);
    // O in fp32 FMAs, keys from `from` on up to `dropped` before the last one that is visible.
    const auto product = [&](int from, int dropped, int head_shift) {
      std::vector<float> o(p.q_elements());
      const std::int64_t kv_heads = std::int64_t{p.batch} * p.kv_heads;
      for (std::int64_t row = 0; row < p.q_rows(); ++row) {
        const std::vector<float> weights = input_row(p, Tensor::p, f.in, row);
        const std::int64_t kv = (row / p.seq / p.group() + head_shift) % kv_heads * p.kv_seq;
        for (int d = 0; d < p.head_dim; ++d) {
          float sum = 0;
          for (int j = from; j < p.visible_keys(row % p.seq) - dropped; ++j) {
            sum = std::fma(weights[j], f.in.v[(kv + j) * p.head_dim + d], sum);
          }
          o[row * p.head_dim + d] = round_to(p.dtype, sum);
        }
      }
      return o;
    };
    CHECK(compare(p, f.exact, product(0, 0, 0)).why == "");
    CHECK_FALSE(compare(p, f.exact, product(0, 1, 0)).ok);  // the mask is one key too narrow
    CHECK_FALSE(compare(p, f.exact, product(1, 0, 0)).ok);
    CHECK_FALSE(compare(p, f.exact, product(0, 0, 1)).ok);  // another head's V
    CHECK_THROWS_AS(compare(p, f.exact, product(0, 0, 0), std::vector<float>(p.q_rows())),
                    std::invalid_argument);
  }
}

// 16384 keys average V out to about 0.01: an absolute tolerance is then as large as the result.
TEST_CASE("check: table of a dropped tile that a flat tolerance of 1e-2 lets through") {
  for (DType dtype : {DType::fp16, DType::bf16}) {
    Problem p{.heads = 1,
              .kv_heads = 1,
              .seq = 64,
              .kv_seq = 16384,
              .head_dim = 64,
              .dtype = dtype,
              .causal = false,
              .scale = 0.125};
    const HostInputs in = make_inputs(p, Distribution::normal, 5);
    const ReferenceRows exact = reference(p, in, all_rows(p));
    p.kv_seq -= 64;  // the last tile of 64 keys; with one head the others stay where they are
    const ReferenceRows dropped = reference(p, in, all_rows(p));
    p.kv_seq += 64;
    const ErrorReport report = compare(p, exact, dropped.plain, dropped.plain_lse);
    CHECK(report.max_abs < 1e-2);
    CHECK_FALSE(report.ok);
    INFO(fmt::format("{}: max_abs {:.2g}, scaled {:.2g}, budget {:.2g}", to_string(p),
                     report.max_abs, report.scaled, report.budget));
    CHECK(report.scaled > 5 * report.budget);
  }
}

TEST_CASE("check: table of the budget at work on `tiny`") {
  const Problem tiny;
  const HostInputs in = make_inputs(tiny, Distribution::normal, 1);
  const ReferenceRows r = reference(tiny, in, all_rows(tiny));
  const ErrorReport plain = compare(tiny, r, r.plain, r.plain_lse);
  CHECK(plain.ok);
  CHECK(plain.budget == doctest::Approx(2 * plain.scaled + 0x1p-10));
  std::string table =
      fmt::format("plain error {:.3g}, budget {:.3g}\n", plain.scaled, plain.budget);
  for (int row : {1, 15, 255, 1023}) {
    double squares = 0, worst = 0;
    for (int d = 0; d < 64; ++d) {
      const double exact = r.exact[row * 64 + d];
      squares += exact * exact / 64;
      worst = std::max(worst, std::abs(r.plain[row * 64 + d] - exact));
    }
    table +=
        fmt::format("| {} | {} | {:.3f} | {:.3f} | {:.2g} | {:.2g} | {:.1f} % |\n", row, row + 1,
                    std::sqrt(squares), r.row_scale[row], worst, plain.budget * r.row_scale[row],
                    100 * plain.budget * r.row_scale[row] / std::sqrt(squares));
    // About the same share of the row everywhere, however many keys were averaged.
    CHECK(plain.budget * r.row_scale[row] < 0.02 * std::sqrt(squares));
  }
  INFO(table);
  CHECK(plain.row_rel_l2 < 1e-3);
}

TEST_CASE("check: table of the mistakes against the budget") {
  for (DType dtype : {DType::fp16, DType::bf16, DType::fp32}) {
    Problem p{.heads = 4,
              .kv_heads = 2,
              .seq = 200,
              .kv_seq = 300,
              .head_dim = 64,
              .dtype = dtype,
              .causal = true,
              .scale = 0.125};
    std::string table = fmt::format("{}\n", to_string(p));
    const Fixture causal(p);
    p.causal = false;
    const Fixture full(p);
    for (Mutant mutant :
         {Mutant::none, Mutant::last_tile_dropped, Mutant::no_rescale, Mutant::divided_twice,
          Mutant::wrong_scale, Mutant::mask_off_by_one, Mutant::mask_top_left,
          Mutant::padding_scores_zero, Mutant::wrong_kv_head}) {
      const Fixture& f = mutant == Mutant::padding_scores_zero ? full : causal;
      const ErrorReport report = f.check(fused(f.p, f.in, mutant));
      CHECK(report.ok == (mutant == Mutant::none));
      table += fmt::format("| {} | {:.2g} | {:.2g} | {:.2g} | {:.2g} | {:.2g} | {} |\n",
                           to_string(mutant), report.scaled, report.budget,
                           report.scaled / report.budget, report.max_abs, report.lse_max_abs,
                           report.ok ? "passes" : "fails");
    }
    INFO(table);
    CHECK(true);  // -s prints it
  }
}
