#include "common/reference.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <span>

#include "common/parallel.hpp"

namespace al {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Where a flattened row is, and the keys it sees.
struct RowPlace {
  std::int64_t kv_head;  // over [B, Hkv]
  int visible;

  RowPlace(const Problem& p, std::int64_t row) {
    const std::int64_t head = row / p.seq % p.heads;
    const std::int64_t batch = row / p.seq / p.heads;
    kv_head = batch * p.kv_heads + head / p.group();
    visible = p.visible_keys(static_cast<int>(row % p.seq));
  }
};

// Eight partial sums, so that the compiler can use vector instructions. In float64 the order of
// the sum does not matter here.
double exact_dot(const float* a, const float* b, int n) {
  double sums[8] = {};
  for (int i = 0; i < n; i += 8) {  // head_dim is a multiple of 16
    for (int lane = 0; lane < 8; ++lane) {
      sums[lane] += static_cast<double>(a[i + lane]) * b[i + lane];
    }
  }
  double sum = 0;
  for (double part : sums) sum += part;
  return sum;
}

// One after the other, each step rounded to fp32: the plain implementation's order.
float plain_dot(const float* a, const float* b, int n) {
  float sum = 0;
  for (int i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

struct ExactRow {
  double lse, row_scale;
};

// out[d] = sum_j softmax(scale q.k)_j v_jd, all in float64. K and V are [visible, D] here; `p` is
// scratch, [visible].
ExactRow exact_attention(const Problem& problem, int visible, const float* q, const float* k,
                         const float* v, double* out, std::span<double> p) {
  const int d_size = problem.head_dim;
  std::fill_n(out, d_size, 0.0);
  if (visible == 0) return {-kInfinity, 0};

  double maximum = -kInfinity;
  for (int j = 0; j < visible; ++j) {
    p[j] = problem.scale * exact_dot(q, k + std::int64_t{j} * d_size, d_size);
    maximum = std::max(maximum, p[j]);
  }
  double sum = 0;
  for (int j = 0; j < visible; ++j) sum += p[j] = std::exp(p[j] - maximum);

  std::vector<double> squares(d_size);
  for (int j = 0; j < visible; ++j) {
    const float* v_row = v + std::int64_t{j} * d_size;
    const double weight = p[j] / sum;
    for (int d = 0; d < d_size; ++d) {
      const double term = weight * v_row[d];
      out[d] += term;
      squares[d] += term * term;
    }
  }
  double mean_square = 0;
  for (double square : squares) mean_square += square / d_size;
  return {maximum + std::log(sum), std::sqrt(mean_square)};
}

// The same as three plain kernels would do it: S in fp32, P stored in the input's dtype, O
// accumulated in fp32 and stored in the input's dtype. Returns the row's LSE.
float plain_attention(const Problem& problem, int visible, const float* q, const float* k,
                      const float* v, float* out, std::span<float> p) {
  const int d_size = problem.head_dim;
  std::fill_n(out, d_size, 0.0f);
  if (visible == 0) return static_cast<float>(-kInfinity);

  const auto scale = static_cast<float>(problem.scale);
  float maximum = static_cast<float>(-kInfinity);
  for (int j = 0; j < visible; ++j) {
    p[j] = scale * plain_dot(q, k + std::int64_t{j} * d_size, d_size);
    maximum = std::max(maximum, p[j]);
  }
  float sum = 0;
  for (int j = 0; j < visible; ++j) sum += p[j] = std::exp(p[j] - maximum);

  for (int j = 0; j < visible; ++j) {
    const float* v_row = v + std::int64_t{j} * d_size;
    const float weight = round_to(problem.dtype, p[j] / sum);
    for (int d = 0; d < d_size; ++d) out[d] += weight * v_row[d];
  }
  for (int d = 0; d < d_size; ++d) out[d] = round_to(problem.dtype, out[d]);
  return maximum + std::log(sum);
}

// mean_j k_jd^2 of every key/value head: [B * Hkv, D].
std::vector<double> mean_squared_keys(const Problem& problem, const std::vector<float>& k,
                                      int threads) {
  const std::int64_t heads = std::int64_t{problem.batch} * problem.kv_heads;
  const int d_size = problem.head_dim;
  std::vector<double> means(heads * d_size);
  parallel_for(heads, 1, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t head = begin; head < end; ++head) {
      const float* keys = k.data() + head * problem.kv_seq * d_size;
      double* mean = means.data() + head * d_size;
      for (std::int64_t j = 0; j < problem.kv_seq; ++j) {
        for (int d = 0; d < d_size; ++d) {
          mean[d] += static_cast<double>(keys[j * d_size + d]) * keys[j * d_size + d];
        }
      }
      for (int d = 0; d < d_size; ++d) mean[d] /= problem.kv_seq;
    }
  });
  return means;
}

void fill_scores(const Problem& problem, const HostInputs& inputs, int threads,
                 ReferenceRows& result) {
  const int d_size = problem.head_dim;
  const auto scale = static_cast<float>(problem.scale);
  const std::vector<double> mean_k2 = mean_squared_keys(problem, inputs.k, threads);
  parallel_for(std::ssize(result.rows), 4, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const RowPlace place(problem, result.rows[r]);
      const float* q = inputs.q.data() + result.rows[r] * d_size;
      const float* k = inputs.k.data() + place.kv_head * problem.kv_seq * d_size;
      for (std::int64_t j = 0; j < place.visible; ++j) {
        const std::int64_t at = r * result.columns + j;
        result.exact[at] = problem.scale * exact_dot(q, k + j * d_size, d_size);
        result.plain[at] = scale * plain_dot(q, k + j * d_size, d_size);
      }
      double squares = 0;
      for (int d = 0; d < d_size; ++d) {
        squares += static_cast<double>(q[d]) * q[d] * mean_k2[place.kv_head * d_size + d];
      }
      result.row_scale[r] = std::abs(problem.scale) * std::sqrt(squares);
    }
  });
}

void fill_attention(const Problem& problem, const HostInputs& inputs, int threads,
                    ReferenceRows& result) {
  const int d_size = problem.head_dim;
  result.exact_lse.resize(result.rows.size());
  result.plain_lse.resize(result.rows.size());
  parallel_for(std::ssize(result.rows), 4, threads, [&](std::int64_t begin, std::int64_t end) {
    std::vector<double> exact_p(problem.kv_seq);
    std::vector<float> plain_p(problem.kv_seq);
    for (std::int64_t r = begin; r < end; ++r) {
      const RowPlace place(problem, result.rows[r]);
      const float* q = inputs.q.data() + result.rows[r] * d_size;
      const float* k = inputs.k.data() + place.kv_head * problem.kv_seq * d_size;
      const float* v = inputs.v.data() + place.kv_head * problem.kv_seq * d_size;
      const ExactRow exact =
          exact_attention(problem, place.visible, q, k, v, &result.exact[r * d_size], exact_p);
      result.exact_lse[r] = exact.lse;
      result.row_scale[r] = exact.row_scale;
      result.plain_lse[r] =
          plain_attention(problem, place.visible, q, k, v, &result.plain[r * d_size], plain_p);
    }
  });
}

}  // namespace

std::vector<std::int64_t> rows_to_check(const Problem& problem, int at_most) {
  const std::int64_t all = problem.q_rows();
  const bool scores = problem.operation == Operation::scores;
  const double elements = double(all) * (scores ? problem.kv_seq : problem.head_dim);
  // 4 GFLOP, in float64 and again in fp32, take about a second on two cores; 16 Mi elements of
  // the reference take 200 MB.
  const bool cheap = minimum_work(problem).flops <= 4e9 && elements <= 16 << 20;
  if (all <= at_most || cheap) {
    std::vector<std::int64_t> rows(all);
    for (std::int64_t row = 0; row < all; ++row) rows[row] = row;
    return rows;
  }

  std::set<std::int64_t> rows;
  const auto add = [&](std::int64_t head, std::int64_t query) {
    if (std::ssize(rows) < at_most) rows.insert(head * problem.seq + query);
  };
  const std::int64_t heads = std::int64_t{problem.batch} * problem.heads;
  const std::int64_t seq = problem.seq;
  const std::int64_t last_edge = (seq - 1) / 64 * 64;  // where the last tile begins
  for (const std::int64_t head : {std::int64_t{0}, heads - 1}) {
    for (const std::int64_t query :
         {std::int64_t{0}, seq - 1, std::int64_t{1}, seq - 2, std::int64_t{63}, std::int64_t{64},
          last_edge - 1, last_edge}) {
      if (query >= 0 && query < seq) add(head, query);
    }
  }
  // The rest anywhere: one in two moved to the edge of its tile, first row or last.
  std::uint64_t state = 1;
  const auto draw = [&](std::int64_t below) {  // Knuth's MMIX generator; its high bits are good
    state = state * 6364136223846793005 + 1442695040888963407;
    return static_cast<std::int64_t>((state >> 33) % below);
  };
  while (std::ssize(rows) < at_most) {
    const std::int64_t head = draw(heads);
    std::int64_t query = draw(seq);
    switch (draw(4)) {
      case 0:
        query = query / 64 * 64;
        break;
      case 1:
        query = std::min(query / 64 * 64 + 63, seq - 1);
        break;
    }
    add(head, query);
  }
  return {rows.begin(), rows.end()};
}

int ReferenceRows::visible(const Problem& problem, std::size_t row_index) const {
  if (problem.operation == Operation::attention) return problem.head_dim;
  return problem.visible_keys(static_cast<int>(rows[row_index] % problem.seq));
}

ReferenceRows reference(const Problem& problem, const HostInputs& inputs,
                        std::vector<std::int64_t> rows, int threads) {
  const bool scores = problem.operation == Operation::scores;
  ReferenceRows result;
  result.rows = std::move(rows);
  result.columns = scores ? problem.kv_seq : problem.head_dim;
  result.exact.resize(result.rows.size() * result.columns);
  result.plain.resize(result.rows.size() * result.columns);
  result.row_scale.resize(result.rows.size());
  (scores ? fill_scores : fill_attention)(problem, inputs, threads, result);
  return result;
}

}  // namespace al
