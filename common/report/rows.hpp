// The rows of a result as the reports look at them: grouped by problem, column by column.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "common/report/columns.hpp"
#include "common/report/results.hpp"

namespace al {

using Rows = std::vector<const Row*>;

bool same_problem(const Row& a, const Row& b);  // operation, config and all sizes

// The rows, grouped by problem, in the order in which the problems first appear.
std::vector<Rows> by_problem(const Results& results);

std::string heading(const Row& row);          // "tiny: B1 H8 N1024 D64 fp16 full, S = scale Q K^T"
std::string machine(const Results& results);  // device, date and commit
std::optional<double> median_ms(const Row& row);
std::optional<double> moved_mb(const Row& row);  // loaded and stored, by the emulator's count
std::optional<double> share(double part, double whole);  // absent when there is no whole

// One column's cells: get(row) of each row, lined up.
template <class Get>
std::vector<std::string> numbers(const Rows& rows, Get get, int most_decimals = 4) {
  std::vector<std::optional<double>> values;
  for (const Row* row : rows) values.push_back(get(*row));
  return aligned(values, most_decimals);
}

}  // namespace al
