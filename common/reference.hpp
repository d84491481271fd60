// The float64 oracle, and the plain fp32 implementation whose error sets the budget.
#pragma once

#include <cstdint>
#include <vector>

#include "common/data.hpp"
#include "common/problem.hpp"

namespace al {

// Rows of the result, flattened over [B, Hq, Nq], that a check looks at; sorted, unique.
// All of them while the oracle stays under ~2 s of arithmetic, else `at_most` of them: always the
// first and last rows of the first and last heads and the rows around multiples of 64 (tile
// edges), the rest spread by a hash.
std::vector<std::int64_t> rows_to_check(const Problem& problem, int at_most = 512);

struct ReferenceRows {
  std::vector<std::int64_t> rows;
  int columns = 0;                // problem.out_columns()
  std::vector<double> exact;      // [rows, columns]; float64 from the same rounded inputs
  std::vector<double> exact_lse;  // [rows]; where there is a softmax; -inf where no key is visible
  // The plain implementation on the same rows: fp32 scores and accumulation, P and O rounded to
  // the input's dtype.
  std::vector<float> plain;      // [rows, columns]
  std::vector<float> plain_lse;  // [rows]
  // What an error is measured against. For sums, the root-sum-square of the terms that were added
  // up to make an element, averaged over the row: rounding errors are independent, so they add up
  // like this. For probabilities the row's largest: what the sum over the row is made of.
  //   scores:                 |scale| sqrt(sum_d q_d^2 mean_j k_jd^2), the mean over all keys
  //   softmax, probabilities: max_j p_j
  //   pv, attention:          sqrt(mean_d sum_j (p_j v_jd)^2)
  std::vector<double> row_scale;  // [rows]
  // The same of the scores behind them, as in the first line above, where Q and K are read.
  std::vector<double> score_scale;  // [rows]
  // The largest number that is met on the way to a score, |scale| max(|q.k_j|, max_d |q_d k_jd|),
  // on average over the keys as the softmax weighs them. Where Q and K are of 8 bits; else empty.
  std::vector<double> product_scale;  // [rows]
  // Masked entries of S and P are not part of the result.
  int visible(const Problem& problem, std::size_t row_index) const;  // columns that count
};

// Threaded over rows. `threads` 0: one for each core.
ReferenceRows reference(const Problem& problem, const HostInputs& inputs,
                        std::vector<std::int64_t> rows, int threads = 0);

}  // namespace al
