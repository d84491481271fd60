// The command line every stage and `ladder` share. Parsed by CLI11 in options.cpp; the rest of
// the house sees this struct.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/data.hpp"
#include "common/problem.hpp"

namespace al {

struct NamedProblem {
  std::string config;  // "tiny", or "custom" when the sizes are not a published shape's
  Problem problem;
};

enum class Sweep { none, tiles, splits, seq };

struct Options {
  // --config x --dtype x --kv-dtype x --page-size x --causal/--full: every combination, in that
  // order.
  std::vector<NamedProblem> problems;
  std::vector<std::string> variants;  // names, or "all", or "best"; never empty
  Sweep sweep = Sweep::none;
  int sweep_low = 0, sweep_high = 0;  // --sweep seq=LO:HI[:xF]
  double sweep_factor = 2;
  int tokens = 0;  // --tokens: batch x length, the same at every length; 0: the batch is
  Distribution data = Distribution::normal;
  std::uint64_t seed = 1;
  int iters = 0;            // timed samples; 0: enough by the benchmark's own rule (>= 30)
  bool check_only = false;  // --check
  bool list = false;        // --list
  std::string json, csv;    // file, "-" for standard output, empty for none
  std::string load, save;   // directories
  // --trace BLOCK,THREAD: what they do, written to trace_json; block -1: nobody asked.
  std::int64_t trace_block = -1;
  int trace_thread = 0;
  std::string trace_json;
  // ladder only
  std::vector<std::string> stages;   // --stage a,b; empty: all
  std::vector<std::string> compare;  // --compare a.json b.json
};

struct Program {
  std::string name;                            // "01_naive_qk", "ladder"
  std::string title;                           // first line of --help
  Operation operation = Operation::attention;  // what --load reads and --save writes
  std::vector<std::string> variants;           // what --variant accepts beside all and best
  bool is_ladder = false;
  int default_seq = 0;  // 0: the config's
};

// The options, or nothing after --help (printed). Throws Error(usage) with one clear sentence.
// With --load the shapes come from the files' headers. The places that --json, --csv and --save
// name are tried here, leaving nothing there, so that an unwritable one is said before the work.
std::optional<Options> parse_options(int argc, const char* const* argv, const Program& program);

// The published shapes, for --help and tests.
std::vector<NamedProblem> published_configs();

}  // namespace al
