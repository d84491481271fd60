// The words of a command line: which options were given, and with what text. What the texts mean
// is options.cpp's business.
#pragma once

#include <charconv>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/options.hpp"

namespace al {

// Every option has an entry in `values` or, when it takes none, in `flags`.
struct CommandLine {
  std::map<std::string, std::vector<std::string>> values;  // "--seq": what followed it, each time
  std::map<std::string, bool> flags;                       // "--full"

  bool has(const std::string& option) const;
  // The last value of an option that was given.
  const std::string& text(const std::string& option) const { return values.at(option).back(); }
  // The different names in an option's comma lists, in the order they were given.
  std::vector<std::string> names(const std::string& option) const;
  // A whole number >= 1, or `otherwise` when the option was not given.
  int size(const std::string& option, int otherwise) const;
};

// Nothing after --help, which prints the options, the published shapes and examples. Throws
// Error(usage) for unknown options and missing values.
std::optional<CommandLine> parse_command_line(int argc, const char* const* argv,
                                              const Program& program);

// " Did you mean --seq?", or nothing when no word is near.
std::string nearest(const std::string& word, const std::vector<std::string>& allowed);

std::vector<std::string> split(const std::string& list);  // at its commas

// The number that an option's text is; throws Error(usage) saying what is allowed.
int whole_number(const std::string& option, const std::string& text, int at_least);

// True when the whole text is a number of this type.
template <class Number>
bool parse_number(std::string_view text, Number& value) {
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  return failure == std::errc{} && end == text.data() + text.size();
}

}  // namespace al
