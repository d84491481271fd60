#include "common/lab/oracle.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/parallel.hpp"

namespace al::lab {
namespace {

template <typename Real>
constexpr Real kInfinity = std::numeric_limits<Real>::infinity();

// One row of the result: where it is, and its steps one after the other.
template <typename Real>
struct RowMaker {
  const Case& c;
  const HostInputs& inputs;
  const Rules& rules;
  const Mistake& mistake;
  int block_n;
  std::int64_t row;

  const Problem& p = c.problem;
  int i = static_cast<int>(row % p.seq);
  int head = static_cast<int>(row / p.seq % p.heads);
  int sequence = static_cast<int>(row / p.seq / p.heads);
  int keys = p.keys(sequence);

  int kv_head() const {
    switch (mistake.kv_head) {
      case Mistake::KVHead::modulo:
        return head % p.kv_heads;
      case Mistake::KVHead::own:
        return std::min(head, p.kv_heads - 1);
      case Mistake::KVHead::first:
        return 0;
      default:
        return head / p.group();
    }
  }
  const float* k() const { return kv(inputs.k); }
  const float* v() const { return kv(inputs.v); }
  const float* kv(const std::vector<float>& tensor) const {
    return tensor.data() +
           (std::int64_t{sequence} * p.kv_heads + kv_head()) * p.kv_seq * p.head_dim;
  }
  static double of(const std::vector<float>& scales, int h) {
    return scales.empty() ? 1.0 : double{scales[h]};
  }
  double used(const std::vector<float>& scales, int h, bool left_out) const {
    return left_out ? 1 : of(scales, mistake.scales_of_head_0 ? 0 : h);
  }

  bool causal() const { return (p.causal || rules.causal) && !mistake.no_mask; }
  // The last key that the causal mask shows, and one more.
  int end() const {
    if (!causal()) return keys;
    const int diagonal = mistake.top_left ? i : i + keys - p.seq;
    int sees = diagonal + 1 + mistake.mask_shift;
    if (const int rows = mistake.one_masked_tile; rows > 0) {
      const int of_block = std::min((i / rows + 1) * rows, p.seq) + keys - p.seq;
      sees = std::max(sees, (of_block - 1) / block_n * block_n);
    }
    return std::clamp(sees, 0, keys);
  }
  bool sees(int j) const {
    if (j < mistake.keys_begin || (mistake.keys_end >= 0 && j >= mistake.keys_end)) return false;
    if (j < rules.prefix && !mistake.no_prefix && j < keys) return true;
    if (const int rows = mistake.ask_last_row; rows > 0 && block_n > 0) {
      const int last_row = i / rows * rows + rows - 1, tile_end = j / block_n * block_n + block_n;
      if (tile_end <= last_row + 1 + keys - p.seq) return j < keys;
    }
    if (j >= end()) return false;
    if (rules.chunk > 0 && !mistake.no_chunk && j / rules.chunk != (i + keys - p.seq) / rules.chunk)
      return false;
    if (rules.window > 0 && !mistake.no_window) {
      return j >= end() - rules.window - mistake.window_shift;
    }
    return true;
  }

  Real score(int j) const {
    const float* q = inputs.q.data() + row * p.head_dim;
    const float* key = k() + std::int64_t{j} * p.head_dim;
    if (mistake.swapped) {  // Nq = Nkv, Hq = Hkv
      q = inputs.q.data() + (row - i + j) * p.head_dim;
      key = k() + std::int64_t{i} * p.head_dim;
    }
    const int d_end = mistake.d_end > 0 ? mistake.d_end : p.head_dim;
    Real sum = 0;
    const bool distance = rules.distance && mistake.distance != Mistake::Distance::product;
    for (int d = mistake.d_begin; d < d_end; ++d) {
      const float k_d = mistake.K_layout ? k()[other_layout(j, d, c.k_transposed)] : key[d];
      const Real a = static_cast<Real>(q[d]), b = static_cast<Real>(k_d);
      sum += distance ? -(a - b) * (a - b) : a * b;
    }
    if (mistake.distance == Mistake::Distance::plus) sum = -sum;
    const double scale = std::pow(p.scale, mistake.scale_power) *
                         used(inputs.q_scale, head, mistake.no_q_scale) *
                         used(inputs.k_scale, kv_head(), mistake.no_k_scale);
    Real s = static_cast<Real>(scale) * sum;
    if (rules.soft_cap > 0 && !mistake.no_cap) {
      const auto cap = static_cast<Real>(rules.soft_cap);
      s = cap * std::tanh(s / cap);
    }
    if (rules.alibi > 0) {
      const double slope = std::exp2(-rules.alibi * (head + 1) / p.heads);
      s -= static_cast<Real>(mistake.alibi * slope * std::abs(i + keys - p.seq - j));
    }
    return s;
  }

  // |scale| sqrt(sum_d q_d^2 mean_j k_jd^2), roughly: with the mean over d of k too. Of a distance
  // the squares themselves.
  double score_scale(double mean_k2) const {
    const float* q = inputs.q.data() + row * p.head_dim;
    double squares = 0;
    for (int d = 0; d < p.head_dim; ++d) squares += double{q[d]} * q[d];
    return std::abs(p.scale) * of(inputs.q_scale, head) * of(inputs.k_scale, kv_head()) *
           (rules.distance ? squares + p.head_dim * mean_k2 : std::sqrt(squares * mean_k2));
  }

  // Where element (j, d) of a K or V is looked for by one who takes its layout for the other.
  int other_layout(int j, int d, bool is_transposed) const {
    const int at = j * p.head_dim + d;
    return is_transposed ? at % p.kv_seq * p.head_dim + at / p.kv_seq
                         : (d * p.kv_seq + j) % (p.kv_seq * p.head_dim);
  }

  // O += weight · V_j
  void add_value(Real weight, int j, std::vector<Real>& O) const {
    if (mistake.V_before && block_n > 0 && j >= block_n) j -= block_n;
    if (mistake.V_next_row) j = std::min(j + 1, p.kv_seq - 1);
    const float* V = v();
    for (int d = 0; d < p.head_dim; ++d) {
      const int at = mistake.V_layout ? other_layout(j, d, c.v_transposed) : j * p.head_dim + d;
      O[d] += weight * static_cast<Real>(V[at]);
    }
  }

  Real power(Real x) const { return mistake.base_two ? std::exp2(x) : std::exp(x); }

  // The softmax of `s`, tile by tile of block_n keys as an online kernel does it, so that its
  // mistakes can be made; O, where it is wanted, is taken along.
  void online(std::vector<Real>& s, std::vector<Real>* O, Real& lse) const {
    const Real minus = -kInfinity<Real>;
    const int tile = block_n > 0 ? block_n : std::max(1, p.kv_seq);
    const bool normalised = O && mistake.keep != Mistake::Keep::right;
    Real m = minus, l = 0;
    std::vector<Real> weights(s.size(), 0);
    if (mistake.tiles_alike) return alike(s, *O, lse);
    for (int first = 0; first < p.kv_seq; first += tile) {
      const int last = std::min(first + tile, p.kv_seq);
      Real m_new = m;
      for (int j = first; j < last; ++j) m_new = std::max(m_new, s[j]);
      const int padding =
          mistake.padded_to > 0 && last == p.kv_seq && last == keys && (!causal() || end() == keys)
              ? (mistake.padded_to - keys % mistake.padded_to) % mistake.padded_to
              : 0;
      if (padding > 0) m_new = std::max(m_new, Real{0});
      if (m_new == minus) continue;
      const Real shrink = m == minus ? 0 : power(m - m_new);
      const Real l_before = l;
      if (!mistake.keep_l) l *= shrink;
      if (!mistake.keep_O) {
        for (Real& w : weights) w *= shrink;
        if (O && !normalised) {
          for (Real& o : *O) o *= shrink;
        }
      }
      m = m_new;
      l += static_cast<Real>(padding) * power(0 - m);
      for (int j = first; j < last; ++j) {
        if (s[j] == minus) continue;
        weights[j] = power(s[j] - m);
        l += weights[j];
        if (O && !normalised) add_value(weights[j], j, *O);
      }
      if (!normalised) continue;
      const Real kept[] = {shrink * l_before / l, 1, shrink};  // as Mistake::Keep
      for (Real& o : *O) o *= kept[static_cast<int>(mistake.keep)];
      for (int j = first; j < last; ++j) add_value(weights[j] / l, j, *O);
    }
    if (const auto sink = static_cast<Real>(rules.sink); sink != minus && mistake.sinks > 0) {
      const Real m_new = mistake.sink_unscaled ? m : std::max(m, sink);
      const Real shrink = m == minus ? 0 : power(m - m_new), l_before = l;
      l = l * shrink +
          static_cast<Real>(mistake.sinks) * power(mistake.sink_unscaled ? sink : sink - m_new);
      for (Real& w : weights) w *= shrink;
      if (O) {
        for (Real& o : *O) o *= normalised ? shrink * l_before / l : shrink;
      }
      m = m_new;
    }
    Real normalise = l == 0 ? Real{0} : 1 / l;
    if (mistake.no_division) normalise = 1;
    if (mistake.twice_divided) normalise *= normalise;
    for (std::size_t j = 0; j < s.size(); ++j) s[j] = weights[j] * normalise;
    if (O) {
      if (normalised) normalise = 1;
      for (Real& o : *O)
        o *= normalise * static_cast<Real>(used(inputs.v_scale, kv_head(), mistake.no_v_scale));
    }
    lse = l == 0 ? minus : m + std::log(l);
  }

  // The softmax of each tile of keys alone, and the mean of what they give.
  void alike(std::vector<Real>& s, std::vector<Real>& O, Real& lse) const {
    Real tiles = 0, m = -kInfinity<Real>;
    for (std::size_t first = 0; first < s.size(); first += block_n) {
      const auto begin = s.begin() + first, end = s.begin() + std::min(first + block_n, s.size());
      const Real highest = *std::max_element(begin, end);
      if (highest == -kInfinity<Real>) continue;
      Real l = 0;
      for (auto x = begin; x != end; ++x) l += power(*x - highest);
      for (auto x = begin; x != end; ++x) *x = power(*x - highest) / l;
      m = std::max(m, highest + std::log(l));
      tiles += 1;
    }
    for (std::size_t j = 0; j < s.size(); ++j) {
      s[j] = s[j] == -kInfinity<Real> ? 0 : s[j] / tiles;
      if (s[j] > 0) add_value(s[j], static_cast<int>(j), O);
    }
    lse = m + std::log(tiles);
  }

  void make(Answer& a, const std::vector<double>& mean_k2) const {
    const std::size_t at = row * a.columns;
    const bool from_qk = reads(p.operation, Tensor::q), to_O = reads(p.operation, Tensor::v);
    std::vector<Real> s(p.kv_seq, -kInfinity<Real>);
    std::vector<float> given;
    if (!from_qk) {
      given = input_row(p, p.operation == Operation::pv ? Tensor::p : Tensor::s, inputs, row);
    }
    for (int j = 0; j < p.kv_seq; ++j) {
      if (sees(j)) s[j] = from_qk ? score(j) : static_cast<Real>(given[j]);
    }
    if (p.operation == Operation::scores) {
      for (int j = 0; j < p.kv_seq; ++j) {
        a.counts[at + j] = sees(j);
        a.values[at + j] = sees(j) ? double(s[j]) : 0;
      }
      a.row_scale[row] = score_scale(mean_k2[std::int64_t{sequence} * p.kv_heads + kv_head()]);
      return;
    }
    std::vector<Real> O(to_O ? p.head_dim : 0);
    if (p.operation == Operation::pv) {
      for (int j = 0; j < p.kv_seq; ++j) {
        if (!sees(j)) {
          s[j] = 0;
          continue;
        }
        if (rules.half_life > 0 && !mistake.no_decay) {
          s[j] *= static_cast<Real>(std::exp2(-std::abs(i + keys - p.seq - j) / rules.half_life));
        }
        add_value(s[j], j, O);
      }
    } else {
      Real lse = 0;
      online(s, to_O ? &O : nullptr, lse);
      a.lse[row] = lse;
    }
    if (!to_O) {
      for (int j = 0; j < p.kv_seq; ++j) {
        a.counts[at + j] = !p.causal || j < end();
        a.values[at + j] = s[j];
        a.row_scale[row] = std::max(a.row_scale[row], std::abs(double(s[j])));
      }
      return;
    }
    double squares = 0;
    for (int j = 0; j < p.kv_seq; ++j) {
      const float* row_v = v() + std::int64_t{j} * p.head_dim;
      double v2 = 0;
      if (s[j] == 0) continue;
      for (int d = 0; d < p.head_dim; ++d) v2 += double{row_v[d]} * row_v[d];
      squares += double(s[j]) * double(s[j]) * v2;
    }
    a.row_scale[row] = of(inputs.v_scale, kv_head()) * std::sqrt(squares / p.head_dim);
    for (int d = 0; d < p.head_dim; ++d) {
      a.counts[at + d] = 1;
      a.values[at + d] = O[d];
    }
  }
};

// The mean of k^2 over all elements of each key/value head: [B · Hkv].
std::vector<double> mean_squares(const Problem& p, const std::vector<float>& k) {
  std::vector<double> means(std::size_t(p.batch) * p.kv_heads);
  const std::size_t head = std::size_t(p.kv_seq) * p.head_dim;
  if (k.empty()) return means;
  for (std::size_t at = 0; at < k.size(); ++at) means[at / head] += double{k[at]} * k[at] / head;
  return means;
}

}  // namespace

template <typename Real>
Answer answer(const Case& c, const HostInputs& inputs, const Rules& rules, int block_n,
              const Mistake& mistake) {
  const Problem& p = c.problem;
  Answer a;
  a.columns = p.out_columns();
  a.values.resize(p.out_elements());
  a.counts.resize(p.out_elements());
  a.row_scale.resize(p.q_rows());
  if (p.operation != Operation::scores && p.operation != Operation::pv) a.lse.resize(p.q_rows());
  const std::vector<double> mean_k2 = mean_squares(p, inputs.k);
  parallel_for(p.q_rows(), 4, 0, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      RowMaker<Real>{c, inputs, rules, mistake, block_n, row}.make(a, mean_k2);
    }
  });
  return a;
}

template Answer answer<double>(const Case&, const HostInputs&, const Rules&, int, const Mistake&);
template Answer answer<float>(const Case&, const HostInputs&, const Rules&, int, const Mistake&);

}  // namespace al::lab
