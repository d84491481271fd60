#include "common/reference.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <utility>

using namespace al;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::vector<std::int64_t> all_rows(const Problem& problem) {
  std::vector<std::int64_t> rows(problem.q_rows());
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

// The definition, one element at a time and with no care for speed or range.
double by_definition(const Problem& p, const HostInputs& in, std::int64_t row, int column,
                     double* lse = nullptr) {
  const int i = row % p.seq;
  const int head = row / p.seq % p.heads;
  const int batch = row / p.seq / p.heads;
  const int kv_head = head * p.kv_heads / p.heads;
  const auto kv = [&](const std::vector<float>& tensor, int j, int d) -> double {
    return tensor[((std::int64_t{batch} * p.kv_heads + kv_head) * p.kv_seq + j) * p.head_dim + d];
  };
  const auto score = [&](int j) {
    double dot = 0;
    for (int d = 0; d < p.head_dim; ++d) dot += in.q[row * p.head_dim + d] * kv(in.k, j, d);
    return p.scale * dot;
  };
  if (p.operation == Operation::scores) return score(column);
  double numerator = 0, denominator = 0;
  for (int j = 0; j < p.kv_seq; ++j) {
    if (p.causal && j > i + p.kv_seq - p.seq) continue;
    const double weight = std::exp(score(j));
    numerator += weight * kv(in.v, j, column);
    denominator += weight;
  }
  if (lse) *lse = std::log(denominator);
  return denominator == 0 ? 0 : numerator / denominator;
}

Problem small(int heads, int kv_heads, int seq, int kv_seq, bool causal) {
  return {.batch = 2,
          .heads = heads,
          .kv_heads = kv_heads,
          .seq = seq,
          .kv_seq = kv_seq,
          .head_dim = 32,
          .dtype = DType::fp16,
          .causal = causal,
          .scale = 0.25};
}

}  // namespace

TEST_CASE("reference: two keys by hand") {
  // q.k = ln 3 and 0, so the weights are 3/4 and 1/4.
  const Problem p{.heads = 1,
                  .kv_heads = 1,
                  .seq = 1,
                  .kv_seq = 2,
                  .head_dim = 16,
                  .dtype = DType::fp32,
                  .causal = false,
                  .scale = std::log(3.0)};
  HostInputs in{std::vector<float>(16), std::vector<float>(32), std::vector<float>(32)};
  in.q[0] = 1;
  in.k[0] = 1;
  in.v[0] = 4, in.v[16] = 8;
  const ReferenceRows r = reference(p, in, {0});
  CHECK(r.exact[0] == doctest::Approx(5.0).epsilon(1e-14));
  CHECK(r.exact[1] == 0);
  CHECK(r.exact_lse[0] == doctest::Approx(std::log(4.0)).epsilon(1e-14));
  // sqrt of the mean over 16 columns of (3/4 * 4)^2 + (1/4 * 8)^2, the others 0.
  CHECK(r.row_scale[0] == doctest::Approx(std::sqrt(13.0 / 16)).epsilon(1e-14));
  CHECK(r.plain[0] == doctest::Approx(5.0).epsilon(1e-6));
  CHECK(r.columns == 16);
}

TEST_CASE("reference: attention is the definition, with GQA, ragged sizes and either mask") {
  for (const Problem& p : {small(4, 4, 9, 9, true), small(4, 2, 9, 13, true),
                           small(4, 1, 13, 9, true), small(6, 2, 5, 17, false)}) {
    CAPTURE(to_string(p));
    const HostInputs in = make_inputs(p, Distribution::normal, 3);
    const ReferenceRows r = reference(p, in, all_rows(p));
    double worst = 0, worst_lse = 0, worst_plain = 0;
    for (std::size_t row = 0; row < r.rows.size(); ++row) {
      double lse = 0;
      for (int d = 0; d < p.head_dim; ++d) {
        const double exact = by_definition(p, in, row, d, &lse);
        const std::size_t at = row * p.head_dim + d;
        worst = std::max(worst, std::abs(r.exact[at] - exact));
        worst_plain = std::max(worst_plain, std::abs(r.plain[at] - exact));
      }
      if (std::isfinite(lse)) {
        worst_lse = std::max(worst_lse, std::abs(r.exact_lse[row] - lse));
      } else {
        CHECK(r.exact_lse[row] == -kInfinity);
        CHECK(r.plain_lse[row] == -kInfinity);
        CHECK(r.row_scale[row] == 0);
      }
    }
    CHECK(worst < 1e-14);
    CHECK(worst_lse < 1e-14);
    CHECK(worst_plain < 4e-3);
    CHECK(worst_plain > 1e-5);  // it is rounded like a real implementation
  }
}

TEST_CASE("reference: rows that see no key") {
  const Problem p = small(1, 1, 5, 3, true);
  const HostInputs in = make_inputs(p, Distribution::normal, 3);
  const ReferenceRows r = reference(p, in, {0, 1, 2});
  CHECK(r.exact_lse[1] == -kInfinity);
  CHECK(r.exact_lse[2] > -kInfinity);
  CHECK(std::all_of(r.exact.begin(), r.exact.begin() + 2 * p.head_dim,
                    [](double o) { return o == 0; }));
}

TEST_CASE("reference: logits that overflow exp") {
  Problem p = small(1, 1, 4, 8, false);
  p.scale = 1000;
  const HostInputs in = make_inputs(p, Distribution::normal, 3);
  const ReferenceRows r = reference(p, in, all_rows(p));
  for (double o : r.exact) REQUIRE(std::isfinite(o));
  for (double lse : r.exact_lse) REQUIRE(std::isfinite(lse));
}

TEST_CASE("reference: scores") {
  Problem p = small(4, 2, 7, 10, true);
  p.operation = Operation::scores;
  const HostInputs in = make_inputs(p, Distribution::normal, 3);
  const ReferenceRows r = reference(p, in, all_rows(p));
  CHECK(r.columns == 10);
  CHECK(r.exact_lse.empty());
  CHECK(r.visible(p, 0) == 4);
  CHECK(r.visible(p, 6) == 10);
  CHECK(r.visible(p, 7) == 4);  // the next head's first row
  double worst = 0, squares = 0, scales = 0;
  for (std::size_t row = 0; row < r.rows.size(); ++row) {
    for (int j = 0; j < r.visible(p, row); ++j) {
      const double exact = by_definition(p, in, row, j);
      worst = std::max(worst, std::abs(r.exact[row * 10 + j] - exact));
      REQUIRE(std::abs(r.plain[row * 10 + j] - exact) < 1e-5);
      squares += exact * exact / r.visible(p, row);
    }
    scales += r.row_scale[row] * r.row_scale[row];
  }
  CHECK(worst < 1e-13);
  // row_scale is the root mean square that a row of scores can be expected to have.
  CHECK(squares / scales == doctest::Approx(1).epsilon(0.3));
}

TEST_CASE("reference: softmax of rows that are made, not held") {
  for (Problem p :
       {small(2, 1, 9, 13, true), small(2, 1, 13, 9, true), small(3, 3, 5, 17, false)}) {
    p.operation = Operation::softmax;
    const HostInputs in = make_inputs(p, Distribution::outliers, 3);
    CHECK(in.q.empty());
    const ReferenceRows r = reference(p, in, all_rows(p));
    CHECK(r.columns == p.kv_seq);
    double worst = 0, worst_lse = 0, worst_plain = 0;
    int infinite = 0;
    for (std::int64_t row = 0; row < p.q_rows(); ++row) {
      const std::vector<float> s = input_row(p, Tensor::s, in, row);
      const int visible = p.visible_keys(row % p.seq);
      CHECK(r.visible(p, row) == visible);
      double sum = 0, largest = 0;
      for (int j = 0; j < visible; ++j) sum += std::exp(double{s[j]});
      for (int j = 0; j < visible; ++j) {
        const double exact = sum == 0 ? 0 : std::exp(double{s[j]}) / sum;
        infinite += s[j] == -kInfinity && r.exact[row * p.kv_seq + j] == 0;
        largest = std::max(largest, exact);
        worst = std::max(worst, std::abs(r.exact[row * p.kv_seq + j] - exact));
        worst_plain = std::max(worst_plain, std::abs(r.plain[row * p.kv_seq + j] - exact));
      }
      CHECK(r.row_scale[row] == doctest::Approx(largest).epsilon(1e-12));
      if (sum > 0) {
        worst_lse = std::max(worst_lse, std::abs(r.exact_lse[row] - std::log(sum)));
      } else {
        CHECK(r.exact_lse[row] == -kInfinity);
        CHECK(r.plain_lse[row] == -kInfinity);
      }
    }
    CHECK(infinite > 0);
    CHECK(worst < 1e-14);
    CHECK(worst_lse < 1e-13);
    CHECK(worst_plain < 0x1p-11);
    CHECK(worst_plain > 1e-5);  // P is rounded
  }
}

TEST_CASE("reference: a row of nothing but -inf is P = 0, LSE = -inf") {
  Problem p = small(1, 1, 400, 1, false);  // one key: every sixteenth row
  p.operation = Operation::softmax;
  const HostInputs in = make_inputs(p, Distribution::outliers, 3);
  const ReferenceRows r = reference(p, in, all_rows(p));
  int infinite = 0;
  for (int row = 0; row < 800; ++row) {
    const bool none = input_row(p, Tensor::s, in, row)[0] == -kInfinity;
    infinite += none;
    CHECK(r.exact[row] == (none ? 0 : 1));
    CHECK(r.plain[row] == (none ? 0 : 1));
    CHECK((r.exact_lse[row] == -kInfinity) == none);
  }
  CHECK(infinite > 20);
}

TEST_CASE("reference: probabilities, times V, are attention") {
  for (Problem p : {small(4, 2, 9, 13, true), small(4, 1, 13, 9, true)}) {
    const HostInputs in = make_inputs(p, Distribution::normal, 3);
    const ReferenceRows attention = reference(p, in, all_rows(p));
    p.operation = Operation::probabilities;
    const ReferenceRows r = reference(p, in, all_rows(p));
    CHECK(r.exact_lse == attention.exact_lse);
    CHECK(r.plain_lse == attention.plain_lse);
    double worst = 0, worst_sum = 0;
    for (std::int64_t row = 0; row < p.q_rows(); ++row) {
      const std::int64_t kv = row / p.seq / p.group() * p.kv_seq;
      const int visible = r.visible(p, row);
      double sum = 0, first = 0;  // of P, and of column 0 of O
      for (int j = 0; j < visible; ++j) {
        sum += r.exact[row * p.kv_seq + j];
        first += r.exact[row * p.kv_seq + j] * in.v[(kv + j) * p.head_dim];
      }
      if (visible > 0) worst_sum = std::max(worst_sum, std::abs(sum - 1));
      worst = std::max(worst, std::abs(first - attention.exact[row * p.head_dim]));
    }
    CHECK(worst < 1e-14);
    CHECK(worst_sum < 1e-14);
  }
}

TEST_CASE("reference: P V by the definition") {
  for (Problem p :
       {small(4, 2, 9, 13, true), small(4, 1, 13, 9, true), small(2, 2, 5, 17, false)}) {
    p.operation = Operation::pv;
    const HostInputs in = make_inputs(p, Distribution::normal, 3);
    const ReferenceRows r = reference(p, in, all_rows(p));
    CHECK(r.columns == p.head_dim);
    CHECK(r.exact_lse.empty());
    double worst = 0, worst_plain = 0;
    for (std::int64_t row = 0; row < p.q_rows(); ++row) {
      const std::vector<float> weights = input_row(p, Tensor::p, in, row);
      const std::int64_t kv = row / p.seq / p.group() * p.kv_seq;
      double squares = 0;
      for (int d = 0; d < p.head_dim; ++d) {
        double exact = 0;
        for (int j = 0; j < p.visible_keys(row % p.seq); ++j) {
          const double term = double{weights[j]} * in.v[(kv + j) * p.head_dim + d];
          exact += term;
          squares += term * term / p.head_dim;
        }
        worst = std::max(worst, std::abs(r.exact[row * p.head_dim + d] - exact));
        worst_plain = std::max(worst_plain, std::abs(r.plain[row * p.head_dim + d] - exact));
      }
      CHECK(r.row_scale[row] == doctest::Approx(std::sqrt(squares)).epsilon(1e-12));
    }
    CHECK(worst < 1e-13);
    CHECK(worst_plain < 1e-2);
    CHECK(worst_plain > 1e-4);  // O is rounded
  }
}

TEST_CASE("reference: outliers make rows that are one key's, and logits that are large") {
  Problem tiny;
  tiny.operation = Operation::scores;
  const auto peaks = [&](Distribution data) {
    const ReferenceRows r = reference(tiny, make_inputs(tiny, data, 1), all_rows(tiny));
    double largest = 0;
    int peaked = 0;  // rows of more than a hundred keys, one of which has over half of the weight
    for (std::size_t row = 0; row < r.rows.size(); ++row) {
      const double* s = &r.exact[row * r.columns];
      const int visible = r.visible(tiny, row);
      const double maximum = *std::max_element(s, s + visible);
      double sum = 0;
      for (int j = 0; j < visible; ++j) {
        sum += std::exp(s[j] - maximum);
        largest = std::max(largest, std::abs(s[j]));
      }
      peaked += visible > 100 && sum < 2;
    }
    return std::pair{largest, peaked};
  };
  const auto [normal_logit, normal_peaked] = peaks(Distribution::normal);
  const auto [outlier_logit, outlier_peaked] = peaks(Distribution::outliers);
  CAPTURE(normal_logit);
  CAPTURE(outlier_logit);
  CAPTURE(outlier_peaked);
  CHECK(normal_logit < 10);
  CHECK(outlier_logit > 100);  // beyond what exp can take in fp32
  CHECK(normal_peaked == 0);
  CHECK(outlier_peaked > 1000);
}

TEST_CASE("reference: sampled rows and any number of threads give the same bits") {
  const Problem p = small(4, 2, 33, 65, true);
  const HostInputs in = make_inputs(p, Distribution::outliers, 3);
  const ReferenceRows all = reference(p, in, all_rows(p), 1);
  const ReferenceRows threaded = reference(p, in, all_rows(p), 5);
  CHECK(all.exact == threaded.exact);
  CHECK(all.plain == threaded.plain);
  const ReferenceRows some = reference(p, in, {5, 70, 200});
  for (int d = 0; d < p.head_dim; ++d) {
    REQUIRE(some.exact[p.head_dim + d] == all.exact[70 * p.head_dim + d]);
    REQUIRE(some.plain[2 * p.head_dim + d] == all.plain[200 * p.head_dim + d]);
  }
}

TEST_CASE("reference: which rows are checked") {
  SUBCASE("all of a small problem") {
    const Problem tiny;
    const std::vector<std::int64_t> rows = rows_to_check(tiny);
    CHECK(rows == all_rows(tiny));
  }
  SUBCASE("all when there are few, however long they are") {
    Problem decode;
    decode.seq = 1;
    decode.kv_seq = 1 << 20;
    CHECK(rows_to_check(decode).size() == 8);
  }
  SUBCASE("a softmax costs no FLOPs, and is sampled all the same; so is what reads P") {
    Problem p{.batch = 4, .heads = 32, .kv_heads = 32, .seq = 4096, .kv_seq = 4096};
    Problem few{.heads = 2, .kv_heads = 2, .seq = 1024, .kv_seq = 4096};
    for (Operation operation : {Operation::softmax, Operation::pv}) {
      p.operation = few.operation = operation;
      CHECK(rows_to_check(p).size() == 512);
      CHECK(rows_to_check(few).size() == 2048);  // 8 Mi elements
    }
  }
  SUBCASE("a sample of a large one: the corners, the tile edges, and anything else") {
    Problem p{.batch = 2, .heads = 16, .kv_heads = 16, .seq = 8000, .kv_seq = 8000};
    for (Operation operation : {Operation::attention, Operation::scores}) {
      p.operation = operation;
      const std::vector<std::int64_t> rows = rows_to_check(p);
      CHECK(rows.size() == 512);
      CHECK(std::is_sorted(rows.begin(), rows.end()));
      CHECK(std::adjacent_find(rows.begin(), rows.end()) == rows.end());
      CHECK(rows.front() == 0);
      CHECK(rows.back() == p.q_rows() - 1);
      const auto has = [&](std::int64_t head, std::int64_t query) {
        return std::binary_search(rows.begin(), rows.end(), head * p.seq + query);
      };
      for (int head : {0, 31}) {
        for (int query : {0, 1, 63, 64, 7935, 7936, 7998, 7999}) CHECK(has(head, query));
      }
      int edges = 0, inside = 0;
      std::vector<int> heads(32);
      for (std::int64_t row : rows) {
        const int place = row % p.seq % 64;
        (place == 0 || place == 63 ? edges : inside) += 1;
        heads[row / p.seq] += 1;
      }
      CHECK(edges > 200);
      CHECK(inside > 200);
      CHECK(*std::min_element(heads.begin(), heads.end()) > 0);
      CHECK(rows == rows_to_check(p));
    }
    CHECK(rows_to_check(p, 40).size() == 40);
  }
}
