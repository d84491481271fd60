// Results as a text table, JSON and CSV; and JSON back again. The chapters' Markdown tables are
// made from the JSON by docs/weave.py.
#pragma once

#include <span>
#include <string>

#include "common/report/results.hpp"

namespace al {

// The terminal's table, one block a problem; says what the columns mean and why a row is missing.
std::string text_table(const Results& results);
std::string to_json(const Results& results);
std::string to_csv(const Results& results);
Results read_results(
    const std::string& path);  // throws Error(usage): no file, not JSON, wrong schema
// Rows that both files have, side by side, with the ratio of their times.
std::string compare_table(const Results& a, const Results& b);
// --sweep tiles: rows are BLOCK_M, columns BLOCK_N, best thread count in each cell.
std::string heat_map(const Results& results, std::span<const TilePoint> tiles);

// Writes whole or not at all; "-" is standard output. Throws Error(usage).
void write_text(const std::string& path, const std::string& text);

}  // namespace al
