// The heat map of --sweep tiles.
#include <fmt/format.h>

#include <cmath>
#include <map>
#include <set>

#include "common/report/report.hpp"
#include "common/report/rows.hpp"

namespace al {
namespace {

// What a heat map paints: the time, or what stands for it when there is no clock.
std::optional<double> heat(const Row& row) {
  if (!row.refused.empty() || !row.error.ok) return std::nullopt;
  return row.time ? median_ms(row) : moved_mb(row);
}

// Darker is better: within 5 %, 25 % or twice of the best.
const char* shade(double value, double best) {
  if (value <= 1.05 * best) return "█";
  if (value <= 1.25 * best) return "▓";
  return value <= 2 * best ? "▒" : "░";
}

std::string one_map(const Rows& rows, std::span<const TilePoint> tiles) {
  struct Cell {
    bool tried = false;
    std::optional<double> value;
    int threads = 0;
  };
  std::map<int, std::map<int, Cell>> cells;  // [block_m][block_n]
  std::set<int> all_n;
  double best = INFINITY;
  bool timed = false;
  for (const TilePoint& tile : tiles) {
    for (const Row* row : rows) {
      if (row->variant != tile.variant.name) continue;
      Cell& cell = cells[tile.block_m][tile.block_n];
      all_n.insert(tile.block_n);
      cell.tried = true;
      timed = timed || row->time;
      const std::optional<double> value = heat(*row);
      if (value && (!cell.value || *value < *cell.value)) {
        cell.value = value;
        cell.threads = tile.threads;
        best = std::min(best, *value);
      }
    }
  }
  if (cells.empty()) return "";

  std::vector<std::optional<double>> values;  // of all cells together, so that they line up
  for (auto& [m, row] : cells) {
    for (int n : all_n) values.push_back(row[n].value);
  }
  const std::vector<std::string> texts = aligned(values);
  Column names{"BLOCK_M \\ BLOCK_N", {}};
  std::vector<Column> columns;
  for (int n : all_n) columns.push_back({std::to_string(n), {}});
  std::size_t at = 0;
  for (auto& [m, row] : cells) {
    names.cells.push_back(std::to_string(m));
    for (Column& column : columns) {
      const Cell& cell = row[std::stoi(column.title)];
      column.cells.push_back(
          cell.value   ? fmt::format("{} {} /{}", shade(*cell.value, best), texts[at], cell.threads)
          : cell.tried ? "none"
                       : "");
      ++at;
    }
  }
  columns.insert(columns.begin(), std::move(names));
  return fmt::format(
             "{}, {}\n", heading(*rows.front()),
             timed ? "median ms" : "MB of global memory traffic (the emulator has no clock)") +
         render(columns) + "\n";
}

}  // namespace

std::string heat_map(const Results& results, std::span<const TilePoint> tiles) {
  std::string text;
  for (const Rows& rows : by_problem(results)) text += one_map(rows, tiles);
  return text + wrapped(
                    "After the slash: the best number of threads. █ within 5 % of the best, ▓ "
                    "within 25 %, ▒ within 2x, ░ slower; none: refused or wrong.",
                    2);
}

}  // namespace al
