#include "common/report/results.hpp"

#include <algorithm>

namespace al {

void relate_to_priors(std::span<Row> rows) {
  for (Row& row : rows) {
    const auto is_prior = [&](const Row& other) {
      return other.time && other.stage + "/" + other.variant == row.prior;
    };
    const auto prior = std::ranges::find_if(rows, is_prior);
    if (row.time && prior != rows.end()) {
      row.ratio_to_prior = prior->time->primary.median_ms / row.time->primary.median_ms;
    } else {
      row.prior.clear();
    }
  }
}

}  // namespace al
