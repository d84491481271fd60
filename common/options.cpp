#include "common/options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "common/command_line.hpp"
#include "common/error.hpp"
#include "common/files.hpp"
#include "common/hash_data.hpp"
#include "common/npy.hpp"

namespace al {
namespace {

// ---------------------------------------------------------------------------------------------
// Shapes

bool same_sizes(const Problem& a, const Problem& b) {
  return a.batch == b.batch && a.heads == b.heads && a.kv_heads == b.kv_heads && a.seq == b.seq &&
         a.kv_seq == b.kv_seq && a.head_dim == b.head_dim;
}

std::vector<NamedProblem> chosen_configs(const CommandLine& line) {
  const std::vector<NamedProblem> published = published_configs();
  if (!line.has("--config")) return {published.front()};
  std::vector<std::string> known{"all"};
  for (const NamedProblem& named : published) known.push_back(named.config);

  std::vector<NamedProblem> chosen;
  for (const std::string& name : line.names("--config")) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      throw usage_error(fmt::format("--config {} is not a published shape.{} There are: {}.", name,
                                    nearest(name, known), fmt::join(known, ", ")));
    }
    for (const NamedProblem& named : published) {
      // Decoding and the softmax alone have shapes of their own.
      const bool special = named.problem.seq == 1 || named.config.starts_with("softmax");
      if (named.config == name || (name == "all" && !special)) chosen.push_back(named);
    }
  }
  return chosen;
}

// The config with the given options in place of its own values.
NamedProblem overridden(NamedProblem named, const CommandLine& line, const Program& program) {
  Problem& p = named.problem;
  if (program.default_seq > 0) p.seq = program.default_seq;
  const Problem base = p;

  p.batch = line.size("--batch", base.batch);
  p.heads = line.size("--heads", base.heads);
  p.seq = line.size("--seq", base.seq);
  p.head_dim = line.size("--head-dim", base.head_dim);
  // What follows from another size in the config follows it here too; a grouped-query or decode
  // config keeps its own.
  p.kv_heads = line.size("--kv-heads", base.kv_heads == base.heads ? p.heads : base.kv_heads);
  p.kv_seq = line.size("--kv-seq", base.kv_seq == base.seq ? p.seq : base.kv_seq);

  if (!same_sizes(p, base)) {
    named.config = "custom";
    for (const NamedProblem& other : published_configs()) {
      if (same_sizes(p, other.problem)) named.config = other.config;
    }
  }
  return named;
}

std::string shape_text(const std::vector<int>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// The shape that q.npy, k.npy and v.npy have, as a config called "custom".
NamedProblem loaded_shape(const CommandLine& line, const Program& program) {
  for (const char* option : {"--config", "--sweep", "--data"}) {
    if (line.has(option)) {
      throw usage_error(fmt::format(
          "{} cannot be combined with --load: the files hold the shape and the data.", option));
    }
  }
  const std::filesystem::path folder = line.text("--load");
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored)) {
    throw usage_error(fmt::format("--load {} is not a folder.", folder.string()));
  }
  const auto header = [&](const char* file) {
    const std::string path = (folder / file).string();
    NpyHeader found = read_npy_header(path);
    if (found.shape.size() != 4) {
      throw usage_error(fmt::format("{} has shape {}; four dimensions [B, H, N, D] are needed.",
                                    path, shape_text(found.shape)));
    }
    return found;
  };
  const NpyHeader q = header("q.npy"), k = header("k.npy");
  const NpyHeader v = reads(program.operation, Tensor::v) ? header("v.npy") : k;
  if (k.shape != v.shape) {
    throw usage_error(fmt::format("k.npy has shape {} and v.npy {}; they must be the same.",
                                  shape_text(k.shape), shape_text(v.shape)));
  }
  if (q.shape[0] != k.shape[0] || q.shape[3] != k.shape[3]) {
    throw usage_error(fmt::format(
        "q.npy has shape {} and k.npy {}; batch (first) and head dim (last) must agree.",
        shape_text(q.shape), shape_text(k.shape)));
  }
  if (q.element_bytes != k.element_bytes || k.element_bytes != v.element_bytes) {
    throw usage_error("q.npy, k.npy and v.npy must all be f2 or all be f4.");
  }

  NamedProblem named{"custom", {}};
  Problem& p = named.problem;
  p.batch = q.shape[0], p.heads = q.shape[1], p.seq = q.shape[2], p.head_dim = q.shape[3];
  p.kv_heads = k.shape[1], p.kv_seq = k.shape[2];
  const std::pair<const char*, int> sizes[] = {
      {"--batch", p.batch}, {"--heads", p.heads},   {"--kv-heads", p.kv_heads},
      {"--seq", p.seq},     {"--kv-seq", p.kv_seq}, {"--head-dim", p.head_dim},
  };
  for (const auto& [option, size] : sizes) {
    if (line.size(option, size) != size) {
      throw usage_error(fmt::format("{} {} contradicts the files in {}, which say {}.", option,
                                    line.text(option), folder.string(), size));
    }
  }
  if (q.element_bytes == 2 && line.has("--dtype") &&
      line.names("--dtype") != std::vector<std::string>{"fp16"}) {
    throw usage_error(
        fmt::format("--dtype {} contradicts the files in {}, which hold f2, that is fp16; save "
                    "them as f4 to have them rounded.",
                    line.text("--dtype"), folder.string()));
  }
  return named;
}

// --kv-len 100,200 or random: then the first sequence is as long as can be and the others have any
// number of keys from 1 on.
std::vector<int> parse_lengths(const CommandLine& line, const Problem& p) {
  std::vector<int> lengths;
  if (line.text("--kv-len") == "random") {
    constexpr std::uint64_t kStream = 33;  // beyond those of the tensors and the page table
    std::uint64_t seed = 1;
    if (line.has("--seed")) parse_number(line.text("--seed"), seed);
    const WordStream words(seed, kStream);
    lengths.push_back(p.kv_seq);
    for (int b = 1; b < p.batch; ++b) lengths.push_back(1 + static_cast<int>(words[b] % p.kv_seq));
  } else {
    for (const std::string& word : split(line.text("--kv-len"))) {
      lengths.push_back(whole_number("--kv-len", word, 0));
    }
  }
  return lengths;
}

double parse_scale(const CommandLine& line) {
  double scale = 0;
  if (!parse_number(line.text("--scale"), scale)) {
    throw usage_error(
        fmt::format("--scale takes a number such as 0.125, not {}.", line.text("--scale")));
  }
  return scale;
}

std::vector<NamedProblem> parse_problems(const CommandLine& line, const Program& program) {
  std::vector<NamedProblem> shapes;
  if (line.has("--load")) {
    shapes = {loaded_shape(line, program)};
  } else {
    for (const NamedProblem& config : chosen_configs(line)) {
      shapes.push_back(overridden(config, line, program));
    }
  }
  std::vector<DType> dtypes;
  if (line.has("--dtype")) {
    for (const std::string& name : line.names("--dtype")) dtypes.push_back(parse_dtype(name));
  }
  std::vector<std::optional<DType>> kv_dtypes;
  if (line.has("--kv-dtype")) {
    for (const std::string& name : line.names("--kv-dtype")) kv_dtypes.push_back(parse_dtype(name));
  } else {
    kv_dtypes.push_back(std::nullopt);
  }
  std::vector<int> page_sizes;
  if (line.has("--page-size")) {
    for (const std::string& text : line.names("--page-size")) {
      page_sizes.push_back(whole_number("--page-size", text, 0));
    }
  } else {
    page_sizes.push_back(0);
  }

  std::vector<NamedProblem> problems;
  for (NamedProblem named : shapes) {
    named.problem.operation = program.operation;
    named.problem.scale =
        line.has("--scale") ? parse_scale(line) : 1.0 / std::sqrt(named.problem.head_dim);
    // Overriding options can make two configs the same.
    const bool seen = std::any_of(
        problems.begin(), problems.end(),
        [&](const NamedProblem& earlier) { return same_sizes(earlier.problem, named.problem); });
    if (seen) continue;

    std::vector<bool> masks;
    if (line.has("--causal")) masks.push_back(true);
    if (line.has("--full")) masks.push_back(false);
    if (masks.empty()) masks.push_back(named.problem.causal);
    named.problem.one_factor = line.has("--one-factor");
    if (line.has("--kv-len")) named.problem.kv_len = parse_lengths(line, named.problem);
    for (DType dtype : dtypes.empty() ? std::vector{named.problem.dtype} : dtypes) {
      for (const std::optional<DType>& kv_dtype : kv_dtypes) {
        for (const int page_size : page_sizes) {
          for (const bool causal : masks) {
            named.problem.dtype = dtype;
            named.problem.kv_dtype = kv_dtype;
            named.problem.page_size = page_size;
            named.problem.causal = causal;
            validate(named.problem);
            problems.push_back(named);
          }
        }
      }
    }
  }
  return problems;
}

// ---------------------------------------------------------------------------------------------
// What to run

void parse_sweep(const CommandLine& line, Options& options) {
  const std::string& text = line.text("--sweep");
  if (text == "tiles") {
    options.sweep = Sweep::tiles;
  } else if (text == "splits") {
    options.sweep = Sweep::splits;
  } else if (text.starts_with("seq=")) {
    options.sweep = Sweep::seq;
    const std::size_t first = text.find(':'), second = text.find(':', first + 1);
    bool understood = first != text.npos;
    if (understood) {
      const std::string_view all = text;
      const std::string_view high = all.substr(first + 1, second - first - 1);
      understood = parse_number(all.substr(4, first - 4), options.sweep_low) &&
                   parse_number(high, options.sweep_high);
      if (second != text.npos) {
        understood = understood && all.substr(second + 1).starts_with('x') &&
                     parse_number(all.substr(second + 2), options.sweep_factor);
      }
    }
    if (!understood || options.sweep_low < 1 || options.sweep_high < options.sweep_low ||
        !(options.sweep_factor > 1) || !std::isfinite(options.sweep_factor)) {
      throw usage_error(
          fmt::format("--sweep {} is not a range: write seq=LO:HI or seq=LO:HI:xF with whole "
                      "numbers 1 <= LO <= HI and F > 1, such as seq=256:16384:x2.",
                      text));
    }
    for (const char* option : {"--seq", "--kv-seq"}) {
      if (line.has(option)) {
        throw usage_error(
            fmt::format("{} cannot be combined with --sweep seq=, which sets it.", option));
      }
    }
  } else {
    throw usage_error(
        fmt::format("--sweep {} is not known; it takes tiles, splits or seq=LO:HI[:xF].", text));
  }
}

void parse_tokens(const CommandLine& line, Options& options) {
  options.tokens = whole_number("--tokens", line.text("--tokens"), 1);
  if (options.sweep != Sweep::seq || line.has("--batch") || options.tokens < options.sweep_high) {
    throw usage_error(
        "--tokens sets the batch of --sweep seq=LO:HI: give it with that, no fewer tokens than HI, "
        "and no --batch.");
  }
}

std::vector<std::string> parse_variants(const CommandLine& line, const Program& program) {
  if (!line.has("--variant")) {
    return {program.is_ladder || line.has("--save") ? "best" : "all"};
  }
  const std::vector<std::string> names = line.names("--variant");
  std::vector<std::string> known = program.variants;
  known.insert(known.end(), {"all", "best"});
  for (const std::string& name : names) {
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      throw usage_error(fmt::format("--variant {} is not one of {}.{} There are: {}.", name,
                                    program.name, nearest(name, known), fmt::join(known, ", ")));
    }
    if (names.size() > 1 && name == "all") {
      throw usage_error("--variant all already names every variant; give it alone.");
    }
  }
  return names;
}

// --trace BLOCK,THREAD
void parse_trace(const CommandLine& line, Options& options) {
  if (!line.has("--trace")) {
    if (!line.has("--trace-json")) return;
    throw usage_error("--trace-json says where --trace writes; give --trace BLOCK,THREAD too.");
  }
  const std::string& text = line.text("--trace");
  const std::string_view all = text;
  const std::size_t comma = text.find(',');
  if (comma == text.npos || !parse_number(all.substr(0, comma), options.trace_block) ||
      !parse_number(all.substr(comma + 1), options.trace_thread) || options.trace_block < 0 ||
      options.trace_thread < 0 || options.trace_thread > 1023) {
    throw usage_error(fmt::format(
        "--trace takes the number of a block and of a thread in it, both from 0, such as 0,37, not "
        "{}.",
        text));
  }
  options.trace_json = line.has("--trace-json") ? line.text("--trace-json") : "trace.json";
}

// A saved result is one result.
void check_save(const Options& options, const Program& program) {
  const std::string one = "--save writes one result: ";
  if (options.sweep != Sweep::none) throw usage_error(one + "it cannot be combined with --sweep.");
  if (options.problems.size() != 1) {
    throw usage_error(fmt::format("{}choose one config, dtype and mask, not {} of them.", one,
                                  options.problems.size()));
  }
  if (options.variants.size() != 1 || options.variants[0] == "all") {
    throw usage_error(one + "name one variant, or best.");
  }
  if (program.is_ladder && options.stages.size() != 1) {
    throw usage_error(one + "name one stage with --stage.");
  }
}

void check_outputs(const Options& options) {
  if (!options.json.empty() && options.json == options.csv) {
    throw usage_error(fmt::format("--json and --csv cannot both go to {}.",
                                  options.json == "-" ? "standard output" : options.json));
  }
  if (!options.json.empty() && options.json != "-") check_writable("--json", options.json);
  if (!options.csv.empty() && options.csv != "-") check_writable("--csv", options.csv);
  if (!options.trace_json.empty() && options.trace_json != "-") {
    check_writable("--trace-json", options.trace_json);
  }
  if (!options.save.empty()) check_folder_writable("--save", options.save);
}

}  // namespace

std::vector<NamedProblem> published_configs() {
  const auto config = [](const char* name, int batch, int heads, int kv_heads, int seq, int kv_seq,
                         int head_dim, bool causal = true) {
    Problem p;
    p.batch = batch, p.heads = heads, p.kv_heads = kv_heads;
    p.seq = seq, p.kv_seq = kv_seq, p.head_dim = head_dim;
    p.causal = causal && seq > 1;  // one query sees every key either way
    p.scale = 1.0 / std::sqrt(head_dim);
    return NamedProblem{name, p};
  };
  constexpr int k = 1024;
  // clang-format off
  return {
      //                         B  Hq Hkv     Nq    Nkv    D
      config("tiny",             1,  8,  8,     k,     k,  64),
      config("hdim64_seq4k",     4, 32, 32,   4*k,   4*k,  64),
      config("hdim128_seq8k",    2, 16, 16,   8*k,   8*k, 128),
      config("hdim256_seq16k",   1,  8,  8,  16*k,  16*k, 256),
      config("decode_8k",        1, 16, 16,     1,   8*k,  64),
      config("decode_64k",       1, 16, 16,     1,  64*k,  64),
      config("decode_128k",      1, 16, 16,     1, 128*k,  64),
      config("decode_8k_gqa",    1, 32,  8,     1,   8*k, 128),
      config("decode_64k_gqa",   1, 32,  8,     1,  64*k, 128),
      config("decode_128k_gqa",  1, 32,  8,     1, 128*k, 128),
      config("softmax_1k",       1, 16, 16,     k,     k,  64, false),  // 16384 rows of S
      config("softmax_4k",       1,  4,  4,   4*k,   4*k,  64, false),
      config("softmax_8k",       1,  2,  2,   8*k,   8*k,  64, false),
  };
  // clang-format on
}

std::optional<Options> parse_options(int argc, const char* const* argv, const Program& program) {
  const std::optional<CommandLine> given = parse_command_line(argc, argv, program);
  if (!given) return std::nullopt;
  const CommandLine& line = *given;

  Options options;
  options.problems = parse_problems(line, program);
  options.variants = parse_variants(line, program);
  options.check_only = line.has("--check");
  options.list = line.has("--list");
  options.iters = line.size("--iters", 0);
  if (line.has("--sweep")) parse_sweep(line, options);
  if (line.has("--tokens")) parse_tokens(line, options);
  if (line.has("--seed") && !parse_number(line.text("--seed"), options.seed)) {
    throw usage_error(fmt::format("--seed takes a whole number from 0 to 2^64 - 1, not {}.",
                                  line.text("--seed")));
  }
  if (line.has("--data")) {
    const std::string& kind = line.text("--data");
    if (kind != "normal" && kind != "outliers") {
      throw usage_error(fmt::format("--data {} is not known; it takes normal or outliers.", kind));
    }
    options.data = kind == "normal" ? Distribution::normal : Distribution::outliers;
  }
  if (line.has("--json")) options.json = line.text("--json");
  if (line.has("--csv")) options.csv = line.text("--csv");
  if (line.has("--load")) options.load = line.text("--load");
  if (line.has("--save")) options.save = line.text("--save");
  if (program.is_ladder) {
    if (line.has("--stage")) options.stages = line.names("--stage");
    options.compare = line.values.at("--compare");
  }
  if (!options.save.empty()) check_save(options, program);
  parse_trace(line, options);
  check_outputs(options);
  return options;
}

}  // namespace al
