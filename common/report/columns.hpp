// Columns of text, lined up: what every table on the terminal is made of.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

namespace al {

constexpr int line_width = 138;  // the widest line a report may print

struct Column {
  std::string title;
  std::vector<std::string> cells;
  bool left = false;  // words are lined up on the left, numbers on the right
};

// All columns have the same number of cells. `notes`, when given, has one text for each row; a
// text that is not empty goes under its row, wrapped.
std::string render(std::span<const Column> columns, std::span<const std::string> notes = {});

// Numbers with as many decimals as give the smallest one three significant digits, `most` at the
// most, padded on the left so that their decimal points line up. An absent number becomes an
// en dash.
std::vector<std::string> aligned(std::span<const std::optional<double>> values, int most = 4);

// `text` broken at spaces into lines of line_width, each after `indent` spaces.
std::string wrapped(const std::string& text, int indent);

std::string with_thousands(long long value);  // 1234567 -> "1,234,567"

}  // namespace al
