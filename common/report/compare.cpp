// Two runs side by side.
#include <fmt/format.h>

#include <algorithm>

#include "common/report/report.hpp"
#include "common/report/rows.hpp"

namespace al {

std::string compare_table(const Results& a, const Results& b) {
  std::string text = "a: " + machine(a) + "\nb: " + machine(b) + "\n";
  std::size_t shared = 0;
  for (const Rows& rows : by_problem(a)) {
    Rows left, right;
    for (const Row* row : rows) {
      const auto other = std::find_if(b.rows.begin(), b.rows.end(), [&](const Row& candidate) {
        return candidate.stage == row->stage && candidate.variant == row->variant &&
               same_problem(candidate, *row);
      });
      if (other == b.rows.end()) continue;
      left.push_back(row);
      right.push_back(&*other);
    }
    if (left.empty()) continue;
    shared += left.size();

    Column name{"variant", {}, true};
    std::vector<std::optional<double>> ratios;
    for (std::size_t i = 0; i < left.size(); ++i) {
      name.cells.push_back(left[i]->stage + "/" + left[i]->variant);
      const std::optional<double> before = median_ms(*left[i]), after = median_ms(*right[i]);
      ratios.push_back(before && after ? share(*before, *after) : std::nullopt);
    }
    const auto verdict = [](const Rows& side) {
      std::vector<std::string> cells;
      for (const Row* row : side) {
        cells.push_back(!row->refused.empty() ? "refused" : row->error.ok ? "yes" : "NO");
      }
      return cells;
    };
    const std::vector<Column> columns{std::move(name),
                                      {"a right", verdict(left), true},
                                      {"b right", verdict(right), true},
                                      {"a ms", numbers(left, median_ms)},
                                      {"b ms", numbers(right, median_ms)},
                                      {"a/b", aligned(ratios)}};
    text += "\n" + heading(*rows.front()) + "\n" + render(columns);
  }
  if (shared == 0) return text + "\nThe two files have no row in common.\n";
  const auto alone = [](std::size_t rows, const char* file) {
    return rows == 0 ? "" : fmt::format(" {} row(s) are in {} only.", rows, file);
  };
  return text + "\n" +
         wrapped("a/b: how many times faster b is." + alone(a.rows.size() - shared, "a") +
                     alone(b.rows.size() - shared, "b"),
                 2);
}

}  // namespace al
