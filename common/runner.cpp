#include "common/runner.hpp"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <exception>
#include <iterator>
#include <new>
#include <string>
#include <vector>

#include "common/data.hpp"
#include "common/error.hpp"
#include "common/options.hpp"
#include "common/progress.hpp"
#include "common/report/report.hpp"
#include "common/roofline.hpp"
#include "common/tasks.hpp"
#include "common/tensor_files.hpp"
#include "common/workbench.hpp"

#ifdef AL_EMULATOR
#include "common/emulator/launch.hpp"
#include "common/emulator/trace.hpp"
#endif

namespace al {
namespace {

#ifdef AL_EMULATOR
constexpr bool kOnGpu = false;
#else
constexpr bool kOnGpu = true;
#endif

std::string today() {
  const std::time_t now = std::time(nullptr);
  char text[16];
  std::strftime(text, sizeof text, "%Y-%m-%d", std::gmtime(&now));
  return text;
}

#ifndef AL_EMULATOR
// Fills in what takes a GPU: the time, and what it means.
void time_task(const Task& task, Workbench& bench, const Problem& p, int samples,
               const Ceilings& ceilings, Row& row) {
  row.time = bench.time(task.variant, samples, row.error);
  const double ms = row.time->primary.median_ms;
  const Work work = minimum_work(p);
  if (work.flops > 0) row.tflops = work.flops / ms / 1e9;
  row.gbps = work.bytes / ms / 1e6;
  const Cost cost = task.variant.cost ? task.variant.cost(p) : Cost{};
  if ((row.limit = binding_limit(p, units_of(cost), ceilings))) {
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

// The ceilings with memory measured at the problem's own byte count and in its way of timing: a
// copy of 64 MB does not reach the rate of one of 2 GiB.
Ceilings ceilings_for([[maybe_unused]] const Problem& p, Ceilings ceilings) {
#ifndef AL_EMULATOR
  const double bytes = minimum_work(p).bytes;
  if (ceilings.copy_gbps && bytes < 1 << 30) ceilings.copy_gbps = copy_gbps_at(bytes);
#endif
  return ceilings;
}

Row run_task(const Task& task, Workbench& bench, const Problem& p,
             [[maybe_unused]] const Options& options, [[maybe_unused]] const Ceilings& ceilings) {
  Row row;
  if (task.variant.workspace) row.extra_bytes = task.variant.workspace(p);
  row.error = bench.check(task.variant);
#ifdef AL_EMULATOR
  const Counts counts = emulator::take_counts();
  if (counts.checked_blocks > 0) row.counts = counts;  // under ASan nothing is watched
#else
  if (!options.check_only) time_task(task, bench, p, options.iters, ceilings, row);
#endif
  return row;
}

// Runs the tasks of one problem that compute problem.operation, on one workbench. `no_memory` keeps
// the first refusal for want of memory.
void run_operation(const NamedProblem& named, const std::vector<Task>& tasks,
                   const Options& options, Progress& progress, Results& results,
                   std::string& no_memory) {
  std::size_t workspace = 0;
  std::vector<std::string> refusals;
  const Problem& p = named.problem;
  validate(p);
  for (const Task& task : tasks) {
    // What one variant has no memory for, another may have, in the same sweep.
    std::string& why = refusals.emplace_back(too_large(p, 0));
    if (why.empty()) {
      why = refusal(task.variant, p, device());
      if (!why.empty()) continue;
      const std::size_t bytes = task.variant.workspace ? task.variant.workspace(p) : 0;
      why = too_large(p, bytes);
      if (why.empty()) workspace = std::max(workspace, bytes);
    }
    if (no_memory.empty()) no_memory = why;
  }

  const auto push = [&](const Task& task, Row row, const std::string& refused) {
    row.refused = refused;
    row.stage = task.stage_name();
    row.variant = task.variant.name;
    row.idea = task.variant.idea;
    row.role = task.role;
    row.config = named.config;
    row.problem = p;
    row.prior = task.prior;
    results.rows.push_back(std::move(row));
  };

  if (std::ranges::none_of(refusals, &std::string::empty)) {  // no need to make the inputs
    for (std::size_t i = 0; i < tasks.size(); ++i) push(tasks[i], {}, refusals[i]);
    return;
  }
  progress.step(std::string("making inputs and the float64 oracle of ") + to_string(p.operation) +
                " for " + to_string(p));
  const HostInputs inputs = options.load.empty()
                                ? make_inputs(p, options.data, options.seed)
                                : load_inputs(options.load, p, options.data, options.seed);
  const Ceilings ceilings = ceilings_for(p, results.ceilings);
  Workbench bench(p, inputs, workspace);

  for (std::size_t i = 0; i < tasks.size(); ++i) {
    const Task& task = tasks[i];
    Row row;
    if (refusals[i].empty()) {
      progress.step(task.key() + " on " + to_string(p));
      try {
        row = run_task(task, bench, p, options, ceilings);
      } catch (const Error& error) {
        if (task.role != Role::yardstick) throw;
        refusals[i] = error.what();  // a library's trouble must not cost us our own rows
      }
      if (!options.save.empty() && task.role == Role::stage) save_result(options.save, bench, p);
    }
    push(task, std::move(row), refusals[i]);
  }
}

// The problems of --sweep seq: each problem at every length from low to high. Where there are fewer
// queries than keys, as in decoding, it is the keys that grow.
std::vector<NamedProblem> spread_over_lengths(const Options& options) {
  std::vector<NamedProblem> problems;
  for (const NamedProblem& named : options.problems) {
    for (double seq = options.sweep_low; seq <= options.sweep_high; seq *= options.sweep_factor) {
      NamedProblem at = named;
      at.config = "seq" + std::to_string(static_cast<int>(seq));
      at.problem.kv_seq = static_cast<int>(seq);
      if (named.problem.seq == named.problem.kv_seq) at.problem.seq = at.problem.kv_seq;
      if (options.tokens > 0) at.problem.batch = options.tokens / at.problem.kv_seq;
      validate(at.problem);
      problems.push_back(at);
    }
  }
  return problems;
}

// --trace: only the emulator sees each load and store, and not where ASan takes its place.
#if defined(AL_EMULATOR) && !defined(__SANITIZE_ADDRESS__)
void start_trace(const Options& options) {
  emulator::trace_wish() = {options.trace_block, options.trace_thread};
}

void write_trace(const Options& options, const Results& results) {
  const std::vector<std::string> kernels = emulator::take_traces();
  const auto ran = [](const Row& row) { return row.refused.empty(); };
  if (kernels.empty() && std::ranges::none_of(results.rows, ran)) return;  // the table says why
  if (kernels.empty()) {
    throw usage_error(
        "--trace " + std::to_string(options.trace_block) + "," +
        std::to_string(options.trace_thread) +
        ": no kernel that ran has this block and this thread in it; 0,0 is always there.");
  }
  std::string text = "{\"schema\": \"attention-ladder trace 1\", \"program\": \"";
  text += results.program + "\", \"kernels\": [";
  for (const std::string& kernel : kernels)
    text += (&kernel == &kernels[0] ? "\n" : ",\n") + kernel;
  write_text(options.trace_json, text + "\n]}\n");
}
#else
void start_trace(const Options& options) {
  if (options.trace_block < 0) return;
  throw usage_error(
      "--trace needs to see every load and store, which only the emulator does: build the preset "
      "emulator, then run the same program from build/emulator/bin.");
}
void write_trace(const Options&, const Results&) {}
#endif

int finish(const Results& results, const Options& options, std::span<const TilePoint> tiles) {
  if (options.trace_block >= 0) write_trace(options, results);
  if (options.json != "-" && options.csv != "-" && options.trace_json != "-") {
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
  std::string no_memory;
  for (NamedProblem named : problems) {
    const std::size_t first_row = results.rows.size();
    const std::vector<Task> tasks = make_tasks(options, stages, tiles, named.problem);
    for (const Operation operation : kOperations) {
      named.problem.operation = operation;
      std::vector<Task> alike;
      std::ranges::copy_if(tasks, std::back_inserter(alike),
                           [&](const Task& task) { return task.variant.operation == operation; });
      if (!alike.empty()) run_operation(named, alike, options, progress, results, no_memory);
    }
    relate_to_priors(std::span(results.rows).subspan(first_row));
  }
  const auto ran = [](const Row& row) { return row.refused.empty(); };
  if (!no_memory.empty() && std::ranges::none_of(results.rows, ran)) {
    throw usage_error(no_memory + ".");
  }
}

// The whole of a run once the stages are known.
int run(const Options& options, const Program& program, std::span<const Stage* const> stages,
        std::span<const TilePoint> tiles) {
  if (options.list) {
    list(stages);
    return static_cast<int>(ExitCode::right);
  }
  const auto has_splits = [](const Stage* stage) { return !stage->splits.empty(); };
  if (options.sweep == Sweep::splits && std::ranges::none_of(stages, has_splits)) {
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

  start_trace(options);
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
    Program program{.name = stage.name,
                    .title = stage.title,
                    .operation = stage.operation,
                    .variants = {},
                    .default_seq = stage.default_seq};
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
