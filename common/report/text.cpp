// What the terminal shows of a run.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "common/report/report.hpp"
#include "common/report/rows.hpp"

namespace al {
namespace {

std::string ceilings_line(const Ceilings& ceilings) {
  std::string text;
  const auto add = [&](const char* name, std::optional<double> value, const char* unit) {
    if (!value) return;
    text += fmt::format("{}{} {:.{}f} {}", text.empty() ? "" : " · ", name, *value,
                        *value < 1000 ? 1 : 0, unit);
  };
  add("copy", ceilings.copy_gbps, "GB/s");
  add("read", ceilings.read_gbps, "GB/s");
  add("shared", ceilings.shared_gbps, "GB/s");
  add("FFMA", ceilings.ffma_tflops, "TFLOP/s");
  add("tensor", ceilings.tensor_tflops, "TFLOP/s");
  add("mma.sync", ceilings.mma_tflops, "TFLOP/s");
  add("FP8 tensor", ceilings.tensor_fp8_tflops, "TFLOP/s");
  add("exp", ceilings.exp_tops, "T/s");
  if (!text.empty()) return "Ceilings measured in this run: " + text + ".";
  return ceilings.why_absent.empty() ? "" : "Ceilings: " + ceilings.why_absent + ".";
}

// "copy GB/s" -> "copy": the unit is in the column's title.
std::string without_unit(const std::string& ceiling) {
  return ceiling.substr(0, ceiling.find(' '));
}

std::string three_digits(double value) {
  return value < 1000 ? fmt::format("{:.3g}", value) : with_thousands(std::llround(value));
}

struct Block {
  std::vector<Column> columns;
  std::vector<std::string> notes;
};

// "7.12–7.34"; lows and highs with the same number of decimals.
Column range(const Rows& rows) {
  std::vector<std::optional<double>> ends;
  for (const Row* row : rows) {
    if (row->time) ends.insert(ends.end(), {row->time->primary.p10_ms, row->time->primary.p90_ms});
  }
  std::vector<std::string> texts = aligned(ends);
  for (std::string& text : texts) text.erase(0, text.find_first_not_of(' '));
  Column column{"p10–p90 ms", {}};
  std::size_t at = 0;
  for (const Row* row : rows) {
    column.cells.push_back(row->time ? texts[at] + "–" + texts[at + 1] : "–");
    if (row->time) at += 2;
  }
  return column;
}

void add_times(Block& block, const Rows& rows) {
  Column limit{"% of limit", {}, true}, predicted{"predicted ms", {}, true};
  const auto ms = numbers(rows, [](const Row& r) { return r.predicted_ms; });
  bool bytes_bind = true;  // GB/s in place of TFLOP/s
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Row& row = *rows[i];
    limit.cells.push_back(
        row.limit && row.limit_fraction
            ? fmt::format("{:3.0f} % {}", 100 * *row.limit_fraction, without_unit(row.limit->name))
            : "  –");
    predicted.cells.push_back(ms[i] +
                              (row.predicted_ms ? " " + without_unit(row.predicted_by) : ""));
    if (row.limit && !row.limit->name.ends_with("GB/s")) bytes_bind = false;
  }
  const auto ratio = [](const Row& r) { return r.ratio_to_prior; };
  const auto rate = [&](const Row& r) { return bytes_bind ? r.gbps : r.tflops; };
  block.columns.push_back({"ms", numbers(rows, median_ms)});
  block.columns.push_back(range(rows));
  block.columns.push_back({"× prior", numbers(rows, ratio, 2)});
  block.columns.push_back({bytes_bind ? "GB/s" : "TFLOP/s", numbers(rows, rate, 2)});
  block.columns.push_back(std::move(limit));
  block.columns.push_back(std::move(predicted));
}

void add_counts(Block& block, const Rows& rows) {
  using Number = std::optional<double>;
  const auto per_request = [](auto parts, auto requests) {
    return [=](const Row& r) {
      return r.counts ? share(static_cast<double>((*r.counts).*parts), (*r.counts).*requests)
                      : Number{};
    };
  };
  const auto whole = [&](const char* title, auto count) {
    Column column{title, {}};
    for (const Row* row : rows) {
      column.cells.push_back(row->counts ? with_thousands((*row->counts).*count) : "–");
    }
    block.columns.push_back(std::move(column));
  };
  block.columns.push_back({"global MB", numbers(rows, moved_mb)});
  block.columns.push_back(
      {"sectors/request",
       numbers(rows, per_request(&Counts::global_sectors, &Counts::global_requests))});
  block.columns.push_back(
      {"wavefronts/request",
       numbers(rows, per_request(&Counts::shared_wavefronts, &Counts::shared_requests))});
  whole("barriers", &Counts::barriers);
  whole("shuffles", &Counts::shuffles);
}

Block make_block(const Rows& rows) {
  const auto any = [&](auto has) {
    return std::any_of(rows.begin(), rows.end(), [&](const Row* row) { return has(*row); });
  };
  const bool one_stage = !any([&](const Row& row) { return row.stage != rows.front()->stage; });

  Block block;
  Column name{"variant", {}, true}, right{"right", {}, true}, error{"error", {}};
  for (const Row* row : rows) {
    const char* mark = row->role == Role::yardstick ? " *" : row->role == Role::prior ? " <" : "";
    name.cells.push_back((one_stage ? "" : row->stage + "/") + row->variant + mark);
    const std::optional<double> spent = share(row->error.scaled, row->error.budget);
    if (!row->refused.empty()) {
      right.cells.push_back("refused");
      error.cells.push_back("–");
      block.notes.push_back("refused: " + row->refused);
    } else {
      right.cells.push_back(row->error.ok ? "yes" : "NO");
      error.cells.push_back(spent && std::isfinite(*spent) ? fmt::format("{:.2f}", *spent) : "–");
      block.notes.push_back(row->error.ok ? "" : "wrong: " + row->error.why);
    }
  }
  block.columns = {std::move(name), std::move(right)};
  if (any([](const Row& row) { return row.time.has_value(); })) add_times(block, rows);
  if (any([](const Row& row) { return row.counts.has_value(); })) add_counts(block, rows);
  block.columns.push_back({"extra MB", numbers(rows, [](const Row& r) {
                             return r.refused.empty() ? std::optional(r.extra_bytes / 1e6)
                                                      : std::nullopt;
                           })});
  block.columns.push_back(std::move(error));
  return block;
}

// Explains the columns and marks that this table has, and no others.
std::string legend(const Results& results) {
  bool times = false, counts = false, sampled = false, prior = false, yardstick = false;
  for (const Row& row : results.rows) {
    times = times || row.time;
    counts = counts || row.counts;
    sampled = sampled || (row.counts && row.counts->checked_blocks < row.counts->blocks);
    prior = prior || row.role == Role::prior;
    yardstick = yardstick || row.role == Role::yardstick;
  }
  std::string text =
      "right: every checked element keeps its error budget. error: the worst element's error as a "
      "share of that budget. extra MB: workspace.";
  if (times) {
    text +=
        " ms: median. × prior: the time of the rung before / this time. % of limit: the time that "
        "the "
        "least work takes at the ceiling that binds / this time. predicted: from the kernel's own "
        "costs, at the ceiling that is slowest for them.";
  }
  if (counts) {
    text +=
        " global MB: bytes loaded and stored. sectors/request: 32-byte sectors that a warp's "
        "access "
        "to global memory touches. wavefronts/request: passes that its access to shared memory "
        "takes; without bank conflicts 1 for 4 bytes a thread, 4 for 16. barriers: of all blocks; "
        "shuffles: of all warps.";
  }
  if (sampled) {
    text +=
        " Memory was watched in a sample of the blocks and the counts scaled to all; set "
        "AL_EMULATOR_CHECKED_BLOCKS=0 to watch every block.";
  }
  if (prior) text += " <: the rung before, run beside it.";
  if (yardstick) text += " *: a yardstick, a library doing the same job.";
  return wrapped(text, 2);
}

}  // namespace

std::string text_table(const Results& results) {
  std::string text = results.program + " on " + machine(results) + "\n";
  text += wrapped(ceilings_line(results.ceilings), 0);
  for (const Rows& rows : by_problem(results)) {
    const Row& first = *rows.front();
    const Work work = minimum_work(first.problem);
    const std::string flops = work.flops > 0 ? three_digits(work.flops / 1e9) + " GFLOP and " : "";
    text += fmt::format("\n{}; at least {}{} MB\n", heading(first), flops,
                        three_digits(work.bytes / 1e6));
    const Block block = make_block(rows);
    text += render(block.columns, block.notes);
  }
  return text + "\n" + legend(results);
}

}  // namespace al
