#include "common/runner.hpp"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <exception>
#include <filesystem>
#include <limits>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "common/data.hpp"
#include "common/error.hpp"
#include "common/npy.hpp"
#include "common/options.hpp"
#include "common/progress.hpp"
#include "common/report.hpp"
#include "common/roofline.hpp"
#include "common/workbench.hpp"

#ifdef AL_EMULATOR
#include "common/emulator/launch.hpp"
#else
#include "common/yardsticks/yardsticks.hpp"
#endif

namespace al {
namespace {

#ifdef AL_EMULATOR
constexpr bool kOnGpu = false;
std::span<const Variant> yardsticks(Operation) { return {}; }  // libraries need a GPU
#else
constexpr bool kOnGpu = true;
#endif

// One line of the table to be.
struct Task {
  const Stage* stage;  // nullptr: a yardstick
  Variant variant;
  Role role;
  std::string prior;  // "stage/variant" of the task it is timed against; empty: none

  std::string stage_name() const { return stage ? stage->name : "yardstick"; }
  std::string key() const { return stage_name() + "/" + variant.name; }
};

std::string today() {
  const std::time_t now = std::time(nullptr);
  char text[16];
  std::strftime(text, sizeof text, "%Y-%m-%d", std::gmtime(&now));
  return text;
}

// The variants of `stage` that `names` ("all", "best" or names) stand for.
std::vector<const Variant*> select(const Stage& stage, const std::vector<std::string>& names,
                                   const Problem& p) {
  std::vector<const Variant*> chosen;
  for (const std::string& name : names) {
    if (name == "all") {
      for (const Variant& v : stage.variants) chosen.push_back(&v);
    } else if (name == "best") {
      chosen.push_back(&stage.variants[stage.best(p, device())]);
    } else {
      chosen.push_back(&find_variant(stage, name));
    }
  }
  return chosen;
}

// The tasks of one stage, each after the one it is timed against. A prior that the user did not
// ask for is run too, or the ratio could not be from one run.
void add_tasks(std::vector<Task>& tasks, const Stage& stage, const std::vector<std::string>& names,
               const Problem& p) {
  const auto add = [&](const Stage& s, const Variant& v, Role role, std::string prior) {
    const Task task{&s, v, role, std::move(prior)};
    const auto same = [&](const Task& t) { return t.key() == task.key(); };
    const auto found = std::find_if(tasks.begin(), tasks.end(), same);
    if (found == tasks.end()) {
      tasks.push_back(task);
    } else if (role == Role::stage) {  // it was there as a prior only; now it is asked for
      found->role = role;
      found->prior = task.prior;
    }
    return task.key();
  };
  for (const Variant* variant : select(stage, names, p)) {
    std::string prior;
    if (variant->prior) {
      prior = add(stage, find_variant(stage, variant->prior), Role::prior, "");
    } else if (stage.prior) {
      prior =
          add(*stage.prior, stage.prior->variants[stage.prior->best(p, device())], Role::prior, "");
    }
    add(stage, *variant, Role::stage, prior);
  }
}

// What to run on a problem: the stages that compute its operation, then the yardsticks beside them.
std::vector<Task> make_tasks(const Options& options, std::span<const Stage* const> stages,
                             std::span<const TilePoint> tiles, const Problem& p) {
  std::vector<Task> tasks;
  for (const Stage* stage : stages) {
    if (stage->operation != p.operation) continue;
    if (options.sweep == Sweep::tiles) {
      for (const TilePoint& tile : tiles) tasks.push_back({stage, tile.variant, Role::stage, ""});
    } else {
      add_tasks(tasks, *stage, options.variants, p);
    }
  }
  if (!tasks.empty() && !options.check_only && options.sweep != Sweep::tiles) {
    for (const Variant& v : yardsticks(p.operation)) {
      tasks.push_back({nullptr, v, Role::yardstick, ""});
    }
  }
  return tasks;
}

#ifndef AL_EMULATOR
// Fills in what takes a GPU: the time, and what it means.
void time_task(const Task& task, Workbench& bench, const Problem& p, int samples,
               const Ceilings& ceilings, Row& row) {
  row.time = bench.time(task.variant, samples, row.error);
  const double ms = row.time->primary.median_ms;
  const Work work = minimum_work(p);
  row.tflops = work.flops / ms / 1e9;
  row.gbps = work.bytes / ms / 1e6;
  const Cost cost = task.variant.cost ? task.variant.cost(p) : Cost{};
  if ((row.limit = binding_limit(p, cost.tensor_flops > 0, ceilings))) {
    row.limit_fraction = row.limit->ms / ms;
  }
  if (task.variant.cost) {
    if (const auto predicted = predict(cost, ceilings)) {
      row.predicted_ms = predicted->ms;
      row.predicted_by = predicted->name;
    }
  }
}
#endif

Row run_task(const Task& task, Workbench& bench, const Problem& p,
             [[maybe_unused]] const Options& options, [[maybe_unused]] const Ceilings& ceilings) {
  Row row;
  if (task.variant.workspace) row.extra_bytes = task.variant.workspace(p);
  row.error = bench.check(task.variant);
#ifdef AL_EMULATOR
  row.counts = emulator::take_counts();
#else
  if (!options.check_only) time_task(task, bench, p, options.iters, ceilings, row);
#endif
  return row;
}

HostInputs load_inputs(const std::string& directory, const Problem& p) {
  const auto read = [&](const char* file) {
    std::vector<float> values = read_npy((std::filesystem::path(directory) / file).string());
    for (float& value : values) value = round_to(p.dtype, value);
    return values;
  };
  HostInputs inputs{.q = read("q.npy"), .k = read("k.npy"), .v = {}};
  if (p.operation != Operation::scores) inputs.v = read("v.npy");
  return inputs;
}

// Writes what the last check left: o.npy and lse.npy, or s.npy for scores, its masked entries -inf.
void save_result(const std::string& directory, const Workbench& bench, const Problem& p) {
  const std::filesystem::path to(directory);
  std::vector<float> result = bench.result();
  if (p.operation == Operation::scores) {
    for (std::int64_t row = 0; row < p.q_rows(); ++row) {
      for (int j = p.visible_keys(static_cast<int>(row % p.seq)); j < p.kv_seq; ++j) {
        result[row * p.kv_seq + j] = -std::numeric_limits<float>::infinity();
      }
    }
    write_npy((to / "s.npy").string(), {p.batch, p.heads, p.seq, p.kv_seq}, 4, result);
    return;
  }
  const int element_bytes = p.dtype == DType::fp16 ? 2 : 4;  // NumPy has no bf16
  write_npy((to / "o.npy").string(), {p.batch, p.heads, p.seq, p.head_dim}, element_bytes, result);
  write_npy((to / "lse.npy").string(), {p.batch, p.heads, p.seq}, 4, bench.lse());
}

// Runs the tasks of one problem; all of them compute problem.operation.
void run_problem(const NamedProblem& named, const std::vector<Task>& tasks, const Options& options,
                 Progress& progress, Results& results) {
  std::size_t workspace = 0;
  std::vector<std::string> refusals;
  const Problem& p = named.problem;
  for (const Task& task : tasks) {
    refusals.push_back(task.variant.refuse(p, device()));
    if (refusals.back().empty() && task.variant.workspace) {
      workspace = std::max(workspace, task.variant.workspace(p));
    }
  }

  require_memory(p, workspace);
  progress.step("making inputs and the float64 oracle for " + to_string(p));
  const HostInputs inputs = options.load.empty() ? make_inputs(p, options.data, options.seed)
                                                 : load_inputs(options.load, p);
  Workbench bench(p, inputs, workspace);

  const std::size_t first_row = results.rows.size();
  for (std::size_t i = 0; i < tasks.size(); ++i) {
    const Task& task = tasks[i];
    Row row;
    if (refusals[i].empty()) {
      progress.step(task.key() + " on " + to_string(p));
      try {
        row = run_task(task, bench, p, options, results.ceilings);
      } catch (const Error& error) {
        if (task.role != Role::yardstick) throw;
        refusals[i] = error.what();  // a library's trouble must not cost us our own rows
      }
      if (!options.save.empty() && task.role == Role::stage) save_result(options.save, bench, p);
    }
    row.refused = refusals[i];
    row.stage = task.stage_name();
    row.variant = task.variant.name;
    row.idea = task.variant.idea;
    row.role = task.role;
    row.config = named.config;
    row.problem = p;
    for (std::size_t r = first_row; r < results.rows.size() && row.time; ++r) {
      const Row& other = results.rows[r];
      if (other.stage + "/" + other.variant != task.prior || !other.time) continue;
      row.prior = task.prior;
      row.ratio_to_prior = other.time->primary.median_ms / row.time->primary.median_ms;
    }
    results.rows.push_back(std::move(row));
  }
}

// The problems of --sweep seq: each problem at every length from low to high.
std::vector<NamedProblem> spread_over_lengths(const Options& options) {
  std::vector<NamedProblem> problems;
  for (const NamedProblem& named : options.problems) {
    for (double seq = options.sweep_low; seq <= options.sweep_high; seq *= options.sweep_factor) {
      NamedProblem at = named;
      at.config = "seq" + std::to_string(static_cast<int>(seq));
      at.problem.seq = at.problem.kv_seq = static_cast<int>(seq);
      validate(at.problem);
      problems.push_back(at);
    }
  }
  return problems;
}

int finish(const Results& results, const Options& options, std::span<const TilePoint> tiles) {
  if (options.json != "-" && options.csv != "-") {
    write_text("-", options.sweep == Sweep::tiles ? heat_map(results, tiles) : text_table(results));
  }
  if (!options.json.empty()) write_text(options.json, to_json(results));
  if (!options.csv.empty()) write_text(options.csv, to_csv(results));
  const bool right = std::all_of(results.rows.begin(), results.rows.end(), [](const Row& row) {
    return !row.refused.empty() || row.role == Role::yardstick || row.error.ok;
  });
  const bool ran = std::any_of(results.rows.begin(), results.rows.end(), [](const Row& row) {
    return row.role == Role::stage && row.refused.empty();
  });
  if (!ran) return static_cast<int>(ExitCode::usage);  // the table says why each was refused
  return static_cast<int>(right ? ExitCode::right : ExitCode::wrong_result);
}

void list(std::span<const Stage* const> stages) {
  for (const Stage* stage : stages) {
    std::printf("%s  %s\n", stage->name, stage->title);
    for (const Variant& v : stage->variants) std::printf("  %-18s %s\n", v.name, v.idea);
  }
}

void run_problems(const Options& options, std::span<const Stage* const> stages,
                  std::span<const TilePoint> tiles, Results& results) {
  Progress progress;
  if (kOnGpu && !options.check_only) {
    progress.step("measuring what this GPU can do");
    results.ceilings = measure_ceilings();
  }
  const auto problems =
      options.sweep == Sweep::seq ? spread_over_lengths(options) : options.problems;
  for (NamedProblem named : problems) {
    for (const Operation operation : {Operation::scores, Operation::attention}) {
      named.problem.operation = operation;
      const auto tasks = make_tasks(options, stages, tiles, named.problem);
      if (!tasks.empty()) run_problem(named, tasks, options, progress, results);
    }
  }
}

// The whole of a run once the stages are known.
int run(const Options& options, const Program& program, std::span<const Stage* const> stages,
        std::span<const TilePoint> tiles) {
  if (options.list) {
    list(stages);
    return static_cast<int>(ExitCode::right);
  }
  if (options.sweep == Sweep::splits) {
    throw usage_error("--sweep splits is not for " + program.name +
                      ": only chapter 07 splits the keys; choose tiles or seq=LO:HI.");
  }
  if (options.sweep == Sweep::tiles && tiles.empty()) {
    throw usage_error("--sweep tiles needs many kernels that are not built by default: run " +
                      ("make sweep STAGE=" + program.name) + ".");
  }
  if (!options.save.empty() && options.problems.size() > 1) {
    throw usage_error("--save writes one result: name one --config, one --dtype and one mask.");
  }

  Results results{.program = program.name,
                  .date = today(),
                  .commit = AL_COMMIT,
                  .device = device(),
                  .ceilings = {},
                  .rows = {}};
  run_problems(options, stages, tiles, results);
  return finish(results, options, tiles);
}

// Every way out of a program: an exit code, and one plain sentence on stderr where it is not 0.
template <typename Body>
int guarded(const char* program, Body body) {
  try {
    return body();
  } catch (const Error& error) {
    std::fprintf(stderr, "%s: %s\n", program, error.what());
    return static_cast<int>(error.code);
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "%s: the host ran out of memory; choose a smaller problem.\n", program);
    return static_cast<int>(ExitCode::usage);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", program, error.what());
    return static_cast<int>(ExitCode::wrong_result);
  }
}

}  // namespace

int stage_main(int argc, char** argv, const Stage& stage, std::span<const TilePoint> tiles) {
  return guarded(stage.name, [&] {
    Program program{
        .name = stage.name, .title = stage.title, .operation = stage.operation, .variants = {}};
    for (const Variant& v : stage.variants) program.variants.push_back(v.name);
    const auto options = parse_options(argc, argv, program);
    if (!options) return static_cast<int>(ExitCode::right);
    const Stage* const stages[] = {&stage};
    return run(*options, program, stages, tiles);
  });
}

int ladder_main(int argc, char** argv, std::span<const Stage* const> stages) {
  return guarded("ladder", [&] {
    Program program{.name = "ladder",
                    .title = "Every stage of attention-ladder in one table",
                    .variants = {},
                    .is_ladder = true};
    const auto options = parse_options(argc, argv, program);
    if (!options) return static_cast<int>(ExitCode::right);
    if (!options->compare.empty()) {
      write_text(
          "-", compare_table(read_results(options->compare[0]), read_results(options->compare[1])));
      return static_cast<int>(ExitCode::right);
    }
    std::vector<const Stage*> chosen;
    for (const Stage* stage : stages) {
      const auto& names = options->stages;
      const bool wanted = names.empty() || std::any_of(names.begin(), names.end(), [&](auto& n) {
                            return std::string(stage->name).starts_with(n);
                          });
      if (wanted) chosen.push_back(stage);
    }
    if (chosen.empty()) {
      throw usage_error("--stage names no stage there is; ladder --list shows them.");
    }
    return run(*options, program, chosen, {});
  });
}

}  // namespace al
