#include "common/report/columns.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace al {
namespace {

// Characters, not bytes: UTF-8 continuation bytes (10xxxxxx) take no place on the screen.
std::size_t width(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
}

std::string padded(const std::string& text, std::size_t to, bool left) {
  const std::string spaces(to - width(text), ' ');
  return left ? text + spaces : spaces + text;
}

}  // namespace

std::string render(std::span<const Column> columns, std::span<const std::string> notes) {
  std::vector<std::size_t> widths;
  for (const Column& column : columns) {
    std::size_t widest = width(column.title);
    for (const std::string& cell : column.cells) widest = std::max(widest, width(cell));
    widths.push_back(widest);
  }
  std::string text;
  const auto line = [&](auto cell_of) {
    std::string row;
    for (std::size_t c = 0; c < columns.size(); ++c) {
      row += "  " + padded(cell_of(columns[c]), widths[c], columns[c].left);
    }
    text += row.substr(0, row.find_last_not_of(' ') + 1) + "\n";
  };
  line([](const Column& column) { return column.title; });
  for (std::size_t r = 0; r < columns.front().cells.size(); ++r) {
    line([&](const Column& column) { return column.cells[r]; });
    if (!notes.empty() && !notes[r].empty()) text += wrapped(notes[r], 6);
  }
  return text;
}

std::vector<std::string> aligned(std::span<const std::optional<double>> values, int most) {
  double smallest = INFINITY;
  for (const std::optional<double>& value : values) {
    if (value && *value != 0) smallest = std::min(smallest, std::abs(*value));
  }
  int decimals = 0;
  if (std::isfinite(smallest)) {
    decimals = std::clamp(2 - static_cast<int>(std::floor(std::log10(smallest))), 0, most);
  }
  std::vector<std::string> cells;
  for (const std::optional<double>& value : values) {
    cells.push_back(value ? fmt::format("{:.{}f}", *value, decimals) : "–");
  }
  std::size_t widest = 0;
  for (const std::string& cell : cells) widest = std::max(widest, width(cell));
  for (std::string& cell : cells) cell = padded(cell, widest, false);
  return cells;
}

std::string wrapped(const std::string& text, int indent) {
  const std::size_t room = line_width - indent;
  std::string lines;
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = text.size();
    if (end - begin > room) {
      end = text.rfind(' ', begin + room);
      if (end == text.npos || end <= begin) end = begin + room;  // one very long word
    }
    lines += std::string(indent, ' ') + text.substr(begin, end - begin) + "\n";
    begin = text.find_first_not_of(' ', end);
  }
  return lines;
}

std::string with_thousands(long long value) {
  std::string digits = std::to_string(value);
  for (int at = static_cast<int>(digits.size()) - 3; at > (value < 0); at -= 3) {
    digits.insert(at, ",");
  }
  return digits;
}

}  // namespace al
