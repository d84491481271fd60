#include "common/command_line.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <climits>
#include <cstdio>
#include <numeric>

#include "common/error.hpp"

namespace al {
namespace {

// Levenshtein distance: the fewest single-letter edits from one word to the other.
std::size_t edits(std::string_view from, std::string_view to) {
  std::vector<std::size_t> row(to.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < from.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 0; j < to.size(); ++j) {
      const std::size_t replaced = diagonal + (from[i] != to[j]);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

// Declares the options, with their help; CLI11 fills `line`. Values stay text, so that every
// complaint about one is a sentence of ours.
void declare_options(CLI::App& app, CommandLine& line, const Program& program) {
  std::string group;
  const auto option = [&](const std::string& name, const char* placeholder,
                          const std::string& help) {
    return app.add_option(name, line.values[name], help)->type_name(placeholder)->group(group);
  };
  // The last of several wins, as usual on a command line; lists add up.
  const auto value = [&](const std::string& name, const char* placeholder,
                         const std::string& help) {
    option(name, placeholder, help)->expected(1)->take_last();
  };
  const auto list = [&](const std::string& name, const char* placeholder, const std::string& help) {
    option(name, placeholder, help)->expected(1)->take_all();
  };
  const auto flag = [&](const std::string& name, const std::string& help) {
    app.add_flag(name, line.flags[name], help)->group(group);
  };

  group = "Problem (what is left out comes from --config, tiny by default)";
  list("--config", "NAME[,...]", "Published shapes, listed below; all: every prefill one.");
  value("--batch", "N", "Sequences, B.");
  value("--heads", "N", "Query heads, Hq.");
  value("--kv-heads", "N", "Key/value heads, Hkv; divides --heads. Default: --heads.");
  value("--seq", "N",
        program.default_seq == 1 ? "Queries of a sequence, Nq. Default: 1."
                                 : "Queries of a sequence, Nq.");
  value("--kv-seq", "N",
        program.default_seq == 1 ? "Keys of a sequence, Nkv."
                                 : "Keys of a sequence, Nkv. Default: --seq.");
  value("--head-dim", "N", "Elements of a head, D: 16, 32, 64, 128 or 256.");
  list("--dtype", "TYPE[,...]",
       "fp32, fp16, bf16, e4m3 or e5m2. Default: fp16. 8 bits: with a scale a head; O is fp16.");
  list("--kv-dtype", "TYPE[,...]", "Of K and V. Default: --dtype.");
  flag("--one-factor", "Of 8-bit inputs: the same scale for all heads, as cuDNN wants it.");
  value("--kv-len", "N[,...]", "Keys that each sequence has, or random. Default: all of them.");
  list("--page-size", "N[,...]",
       "K and V in pages of so many keys: 16, 32, 64, 128 or 256; 0: whole.");
  flag("--causal",
       "Query i sees keys j <= i + Nkv - Nq. Default, except where a config says full.");
  flag("--full", "Every query sees every key. With --causal: both, one after the other.");
  value("--scale", "X", "Factor of the scores. Default: 1/sqrt(D).");

  group = "Data";
  value("--data", "KIND", "normal, or outliers: one element in 1024 is 20 times larger.");
  value("--seed", "N", "Seed of the test data. Default: 1.");
  value("--load", "DIR",
        fmt::format(
            "Read {} (f2 or f4, C order); they set the shape.",
            reads(program.operation, Tensor::v) ? "q.npy, k.npy and v.npy" : "q.npy and k.npy"));
  value("--save", "DIR",
        program.operation == Operation::scores
            ? "Write the result to s.npy."
            : "Write the result: s.npy, p.npy or o.npy; with all of attention also lse.npy.");

  group = "What to run";
  if (program.is_ladder) list("--stage", "NAME[,...]", "These stages only. Default: all.");
  list("--variant", "NAME[,...]",
       fmt::format("Which kernels: names, all or best. Default: {}.",
                   program.is_ladder ? "best" : "all, or best with --save"));
  value("--sweep", "WHAT", "tiles, splits or seq=LO:HI[:xF] (from LO, times F = 2, to HI).");
  value("--tokens", "N", "With --sweep seq: N tokens at every length, so --batch is N / length.");
  value("--iters", "N", "Timed samples. Default: as many as the method needs, 30 or more.");
  flag("--check", "Check the results, without timing.");
  flag("--list", "List stages and variants, without running.");

  group = "Output";
  value("--json", "FILE", "Write the results as JSON; -: to standard output.");
  value("--csv", "FILE", "Write the results as CSV; -: to standard output.");
  value(
      "--trace", "BLOCK,THREAD",
      "Emulator only: record which bytes the warp of this thread loads and stores when, with whom "
      "it shuffles, and where banks collide (docs/emulator.md). Both count from 0.");
  value("--trace-json", "FILE", "Where --trace writes. Default: trace.json; -: standard output.");
  if (program.is_ladder) {
    option("--compare", "A.json B.json", "Set two results files side by side; runs nothing.")
        ->expected(2);
  }
  app.set_help_flag("-h,--help", "Print this and exit.")->group(group);
}

std::string help_footer(const Program& program) {
  std::string text = "Configs (an option given beside --config overrides its value):\n";
  for (const NamedProblem& named : published_configs()) {
    text += fmt::format("  {:<20}{}\n", named.config, to_string(named.problem));
  }
  if (!program.variants.empty()) {
    text += fmt::format("\nVariants: {}\n", fmt::join(program.variants, ", "));
  }
  const std::string shape = program.default_seq == 1 ? "--kv-seq 5000" : "--seq 1000 --full";
  text += fmt::format(
      "\nExamples:\n"
      "  {0} --config hdim64_seq4k --json results.json\n"
      "  {0} --heads 8 --kv-heads 2 {1} --dtype bf16 --check\n",
      program.name, shape);
  text +=
      "\nExit codes: 0 right, 1 wrong result, 2 bad usage or unsupported problem, 77 no suitable "
      "device.\n";
  return text;
}

void print_help(const CLI::App& app, const Program& program) {
  std::string text = app.help();
  for (std::size_t at; (at = text.find("\n\n\n")) != text.npos;) text.erase(at, 1);
  fmt::print("{}{}", text, help_footer(program));
}

}  // namespace

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> words;
  std::size_t begin = 0;
  for (std::size_t comma; (comma = list.find(',', begin)) != list.npos; begin = comma + 1) {
    words.push_back(list.substr(begin, comma - begin));
  }
  words.push_back(list.substr(begin));
  return words;
}

std::optional<CommandLine> parse_command_line(int argc, const char* const* argv,
                                              const Program& program) {
  CommandLine line;
  CLI::App app(program.title, program.name);
  app.allow_extras();
  app.get_formatter()->column_width(24);
  app.get_formatter()->label("OPTIONS", "options");
  declare_options(app, line, program);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    print_help(app, program);
    return std::nullopt;
  } catch (const CLI::ArgumentMismatch& mismatch) {
    const std::string what = mismatch.what();  // "--seq: 1 required N missing"
    throw usage_error(fmt::format("{} needs {}; see --help.", what.substr(0, what.find(':')),
                                  what.starts_with("--compare") ? "two files" : "a value"));
  } catch (const CLI::ParseError& failure) {
    throw usage_error(fmt::format("The options cannot be read ({}); see --help.", failure.what()));
  }

  std::vector<std::string> known{"--help"};
  for (const auto& entry : line.values) known.push_back(entry.first);
  for (const auto& entry : line.flags) known.push_back(entry.first);
  if (const auto unknown = app.remaining(); !unknown.empty()) {
    const std::string& word = unknown.front();
    throw usage_error(fmt::format("{} is not an option of {}.{} See --help.", word, program.name,
                                  nearest(word.substr(0, word.find('=')), known)));
  }
  for (const auto& [name, values] : line.values) {
    for (const std::string& text : values) {
      // "--json --check" must not write a file called --check.
      if (text.empty() || text.starts_with("--")) {
        throw usage_error(fmt::format("{} needs a value; see --help.", name));
      }
    }
  }
  return line;
}

std::string nearest(const std::string& word, const std::vector<std::string>& allowed) {
  const auto best = std::min_element(
      allowed.begin(), allowed.end(),
      [&](const auto& a, const auto& b) { return edits(word, a) < edits(word, b); });
  const std::size_t near_enough = std::max<std::size_t>(2, word.size() / 3);
  if (best == allowed.end() || edits(word, *best) > near_enough) return "";
  return fmt::format(" Did you mean {}?", *best);
}

bool CommandLine::has(const std::string& option) const {
  const auto found = values.find(option);
  return found != values.end() ? !found->second.empty() : flags.at(option);
}

std::vector<std::string> CommandLine::names(const std::string& option) const {
  std::vector<std::string> all;
  for (const std::string& list : values.at(option)) {
    for (const std::string& word : split(list)) {
      if (word.empty()) {
        throw usage_error(fmt::format("{} {} has an empty name in it.", option, list));
      }
      if (std::find(all.begin(), all.end(), word) == all.end()) all.push_back(word);
    }
  }
  return all;
}

int CommandLine::size(const std::string& option, int otherwise) const {
  return has(option) ? whole_number(option, text(option), 1) : otherwise;
}

int whole_number(const std::string& option, const std::string& text, int at_least) {
  int value = 0;
  if (!parse_number(text, value) || value < at_least) {
    throw usage_error(fmt::format("{} takes a whole number from {} to {}, not {}.", option,
                                  at_least, INT_MAX, text));
  }
  return value;
}

}  // namespace al
