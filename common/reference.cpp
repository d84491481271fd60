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

// Where a flattened row is, the keys it sees, and the factors of its scores and its output: the
// scales of 8-bit tensors are the same for a whole head, so they can wait until after the sum.
struct RowPlace {
  std::int64_t kv_head;  // over [B, Hkv]
  int visible;
  double scale, v_scale;

  RowPlace(const Problem& p, const HostInputs& inputs, std::int64_t row) {
    const auto head = static_cast<int>(row / p.seq % p.heads);
    const auto sequence = static_cast<int>(row / p.seq / p.heads);
    const int shared = head / p.group();
    const auto of = [](const std::vector<float>& scales, int h) {
      return scales.empty() ? 1.0 : double{scales[h]};
    };
    kv_head = std::int64_t{sequence} * p.kv_heads + shared;
    visible = p.visible_keys(static_cast<int>(row % p.seq), sequence);
    scale = p.scale * of(inputs.q_scale, head) * of(inputs.k_scale, shared);
    v_scale = of(inputs.v_scale, shared);
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

double dot(const float* a, const float* b, int n, double) { return exact_dot(a, b, n); }
float dot(const float* a, const float* b, int n, float) { return plain_dot(a, b, n); }

// The steps of attention for one row, in float64 for the oracle and in fp32 for the plain
// implementation; `s` and `p` hold one number for each visible key, K and V are [visible, D].

// s_j = scale q.k_j
template <typename Real>
void scores_row(double scale, int d_size, const float* q, const float* k, std::span<Real> s) {
  for (Real& score : s) {
    score = static_cast<Real>(scale) * dot(q, k, d_size, Real{});
    k += d_size;
  }
}

// In place. Returns the LSE; without keys, or when every score is -inf, that is -inf and P is 0.
template <typename Real>
Real softmax_row(std::span<Real> s) {
  Real maximum = -std::numeric_limits<Real>::infinity();
  for (const Real score : s) maximum = std::max(maximum, score);
  if (maximum == -std::numeric_limits<Real>::infinity()) {
    std::ranges::fill(s, Real{0});
    return maximum;
  }
  Real sum = 0;
  for (Real& score : s) sum += score = std::exp(score - maximum);
  for (Real& score : s) score /= sum;
  return maximum + std::log(sum);
}

// out_d = v_scale sum_j p_j v_jd
template <typename Real>
void pv_row(std::span<const Real> p, const float* v, double v_scale, std::span<Real> out) {
  std::ranges::fill(out, Real{0});
  for (const Real weight : p) {
    for (std::size_t d = 0; d < out.size(); ++d) out[d] += weight * v[d];
    v += out.size();
  }
  for (Real& o : out) o *= static_cast<Real>(v_scale);
}

// sqrt(mean_d sum_j (p_j v_jd)^2)
double pv_scale(std::span<const double> p, const float* v, double v_scale, int d_size) {
  double sum = 0;
  for (const double weight : p) {
    double squares = 0;
    for (int d = 0; d < d_size; ++d) squares += static_cast<double>(v[d]) * v[d];
    sum += weight * weight * squares;
    v += d_size;
  }
  return v_scale * std::sqrt(sum / d_size);
}

void round_row(DType dtype, std::span<float> values) {
  for (float& value : values) value = round_to(dtype, value);
}

// P is rounded as it is stored. Most weights are too small for 8 bits: there they are rounded
// before the division by l, when the row's largest is 1, and 256 times that, of the 448 that e4m3
// has room for; a power of two, so that nothing else is rounded.
void round_weights(DType dtype, std::span<float> p) {
  if (!is_fp8(dtype)) return round_row(dtype, p);
  const float largest = p.empty() ? 0 : std::ranges::max(p);
  if (!(largest > 0)) return;
  for (float& weight : p) weight = round_to(dtype, weight / largest * 256) / 256 * largest;
}

// sum_j p_j max(|s_j|, |scale| max_d |q_d k_jd|)
double product_scale(double scale, int d_size, const float* q, const float* k,
                     std::span<const double> s, std::span<const double> p) {
  double sum = 0;
  for (std::size_t j = 0; j < s.size(); ++j, k += d_size) {
    float largest = 0;
    for (int d = 0; d < d_size; ++d) largest = std::max(largest, std::abs(q[d] * k[d]));
    sum += p[j] == 0 ? 0 : p[j] * std::max(std::abs(s[j]), std::abs(scale) * largest);
  }
  return sum;
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

// |scale| sqrt(sum_d q_d^2 mean_j k_jd^2) of each row.
std::vector<double> score_scales(const Problem& problem, const HostInputs& inputs, int threads,
                                 const std::vector<std::int64_t>& rows) {
  const int d_size = problem.head_dim;
  const std::vector<double> mean_k2 = mean_squared_keys(problem, inputs.k, threads);
  std::vector<double> scales;
  for (const std::int64_t row : rows) {
    const RowPlace place(problem, inputs, row);
    const float* q = inputs.q.data() + row * d_size;
    double squares = 0;
    for (int d = 0; d < d_size; ++d) {
      squares += static_cast<double>(q[d]) * q[d] * mean_k2[place.kv_head * d_size + d];
    }
    scales.push_back(std::abs(place.scale) * std::sqrt(squares));
  }
  return scales;
}

void fill_scores(const Problem& problem, const HostInputs& inputs, int threads,
                 ReferenceRows& result) {
  const int d_size = problem.head_dim;
  parallel_for(std::ssize(result.rows), 4, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const RowPlace place(problem, inputs, result.rows[r]);
      const auto scale = static_cast<float>(place.scale);
      const float* q = inputs.q.data() + result.rows[r] * d_size;
      const float* k = inputs.k.data() + place.kv_head * problem.kv_seq * d_size;
      for (std::int64_t j = 0; j < place.visible; ++j) {
        const std::int64_t at = r * result.columns + j;
        result.exact[at] = place.scale * exact_dot(q, k + j * d_size, d_size);
        result.plain[at] = scale * plain_dot(q, k + j * d_size, d_size);
      }
      result.row_scale[r] = result.score_scale[r];
    }
  });
}

// All other operations: up to three steps, the first from inputs, each from the one before.
void fill_steps(const Problem& problem, const HostInputs& inputs, int threads,
                ReferenceRows& result) {
  const Operation operation = problem.operation;
  const int d_size = problem.head_dim;
  const bool has_softmax = operation != Operation::pv, times_v = reads(operation, Tensor::v);
  if (has_softmax) {
    result.exact_lse.resize(result.rows.size());
    result.plain_lse.resize(result.rows.size());
  }
  const bool with_products = is_fp8(problem.dtype) && reads(operation, Tensor::q);
  if (with_products) result.product_scale.resize(result.rows.size());
  parallel_for(std::ssize(result.rows), 4, threads, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const RowPlace place(problem, inputs, result.rows[r]);
      const std::int64_t kv_offset = place.kv_head * problem.kv_seq * d_size;
      const float* v = inputs.v.data() + kv_offset;
      std::vector<double> exact(place.visible);
      std::vector<float> plain(place.visible);
      std::vector<double> scores;
      if (reads(operation, Tensor::q)) {
        const float* q = inputs.q.data() + result.rows[r] * d_size;
        const float* k = inputs.k.data() + kv_offset;
        scores_row<double>(place.scale, d_size, q, k, exact);
        scores_row<float>(place.scale, d_size, q, k, plain);
        if (with_products) scores = exact;
      } else {
        const Tensor tensor = has_softmax ? Tensor::s : Tensor::p;
        plain = input_row(problem, tensor, inputs, result.rows[r]);
        plain.resize(place.visible);
        exact.assign(plain.begin(), plain.end());
      }
      if (has_softmax) {
        result.exact_lse[r] = softmax_row<double>(exact);
        if (with_products) {
          result.product_scale[r] =
              product_scale(place.scale, d_size, inputs.q.data() + result.rows[r] * d_size,
                            inputs.k.data() + kv_offset, scores, exact);
        }
        result.plain_lse[r] = softmax_row<float>(plain);
        round_weights(problem.dtype, plain);
      }
      const std::span exact_out(&result.exact[r * result.columns], result.columns);
      const std::span plain_out(&result.plain[r * result.columns], result.columns);
      if (times_v) {
        pv_row<double>(exact, v, place.v_scale, exact_out);
        pv_row<float>(plain, v, place.v_scale, plain_out);
        round_row(problem.out_dtype(), plain_out);
        result.row_scale[r] = pv_scale(exact, v, place.v_scale, d_size);
      } else {
        std::ranges::copy(exact, exact_out.begin());
        std::ranges::copy(plain, plain_out.begin());
        for (const double p : exact) result.row_scale[r] = std::max(result.row_scale[r], p);
      }
    }
  });
}

}  // namespace

std::vector<std::int64_t> rows_to_check(const Problem& problem, int at_most) {
  const std::int64_t all = problem.q_rows();
  // 4 GFLOP, in float64 and again in fp32, take about a second on two cores, and so do 16 Mi
  // elements of S or P, for each is hashed and takes two exponentials; 16 Mi elements of the
  // reference take 200 MB.
  const bool from_scores = !reads(problem.operation, Tensor::q);
  const double elements = double(all) * (from_scores ? problem.kv_seq : problem.out_columns());
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
  return problem.visible_columns(static_cast<int>(rows[row_index] % problem.seq));
}

ReferenceRows reference(const Problem& problem, const HostInputs& inputs,
                        std::vector<std::int64_t> rows, int threads) {
  ReferenceRows result;
  result.rows = std::move(rows);
  result.columns = problem.out_columns();
  result.exact.resize(result.rows.size() * result.columns);
  result.plain.resize(result.rows.size() * result.columns);
  result.row_scale.resize(result.rows.size());
  if (reads(problem.operation, Tensor::q)) {
    result.score_scale = score_scales(problem, inputs, threads, result.rows);
  }
  const bool scores = problem.operation == Operation::scores;
  (scores ? fill_scores : fill_steps)(problem, inputs, threads, result);
  return result;
}

}  // namespace al
