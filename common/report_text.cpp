// What the terminal shows: the table of a run, two runs side by side, and the heat map of a sweep.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "common/error.hpp"
#include "common/grid.hpp"
#include "common/report.hpp"

namespace al {
namespace {

bool same_problem(const Row& a, const Row& b) {
  return a.config == b.config && to_string(a.problem) == to_string(b.problem);
}

// The rows, grouped by problem, in the order in which the problems first appear.
std::vector<std::vector<const Row*>> by_problem(const Results& results) {
  std::vector<std::vector<const Row*>> blocks;
  for (const Row& row : results.rows) {
    const auto block = std::find_if(blocks.begin(), blocks.end(), [&](const auto& candidate) {
      return same_problem(*candidate.front(), row);
    });
    if (block == blocks.end()) {
      blocks.push_back({&row});
    } else {
      block->push_back(&row);
    }
  }
  return blocks;
}

std::string machine(const Results& results) {
  const DeviceInfo& device = results.device;
  std::string text = device.name;
  if (device.backend != "emulator") {
    text += fmt::format(" (sm_{}, {} SMs, driver {}, CUDA {})", device.sm, device.sms,
                        device.driver, device.cuda);
  }
  return text + fmt::format(", {}, commit {}", results.date, results.commit);
}

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
  return text.empty() ? "Ceilings: not measured (" + ceilings.why_absent + ")."
                      : "Ceilings measured in this run: " + text + ".";
}

// "copy GB/s" -> "copy": the unit is in the column's title.
std::string without_unit(const std::string& ceiling) {
  return ceiling.substr(0, ceiling.find(' '));
}

template <class Get>
std::vector<std::string> numbers(const std::vector<const Row*>& rows, Get get) {
  std::vector<std::optional<double>> values;
  for (const Row* row : rows) values.push_back(get(*row));
  return aligned(values);
}

std::optional<double> median_ms(const Row& row) {
  if (!row.time) return std::nullopt;
  return row.time->primary.median_ms;
}

std::optional<double> share(double part, double whole) {
  if (!(whole > 0)) return std::nullopt;
  return part / whole;
}

struct Block {
  std::vector<Column> columns;
  std::vector<std::string> notes;
};

void add_times(Block& block, const std::vector<const Row*>& rows) {
  Column range{"p10–p90 ms", {}}, limit{"% of limit", {}, true},
      predicted{"predicted ms", {}, true};
  const auto low = numbers(rows, [](const Row& r) {
    return r.time ? std::optional(r.time->primary.p10_ms) : std::nullopt;
  });
  const auto high = numbers(rows, [](const Row& r) {
    return r.time ? std::optional(r.time->primary.p90_ms) : std::nullopt;
  });
  const auto ms = numbers(rows, [](const Row& r) { return r.predicted_ms; });
  bool bytes_bind = true;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const Row& row = *rows[i];
    range.cells.push_back(row.time ? low[i] + "–" + high[i] : "–");
    limit.cells.push_back(
        row.limit && row.limit_fraction
            ? fmt::format("{:3.0f} % {}", 100 * *row.limit_fraction, without_unit(row.limit->name))
            : "–");
    predicted.cells.push_back(
        row.predicted_ms ? fmt::format("{} {}", ms[i], without_unit(row.predicted_by)) : "–");
    if (row.limit && !row.limit->name.ends_with("GB/s")) bytes_bind = false;
  }
  block.columns.push_back({"ms", numbers(rows, median_ms)});
  block.columns.push_back(std::move(range));
  block.columns.push_back(
      {"× prior", numbers(rows, [](const Row& r) { return r.ratio_to_prior; })});
  block.columns.push_back({bytes_bind ? "GB/s" : "TFLOP/s", numbers(rows, [&](const Row& r) {
                             return bytes_bind ? r.gbps : r.tflops;
                           })});
  block.columns.push_back(std::move(limit));
  block.columns.push_back(std::move(predicted));
}

void add_counts(Block& block, const std::vector<const Row*>& rows) {
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
  block.columns.push_back(
      {"global MB", numbers(rows, [](const Row& r) {
         return r.counts
                    ? Number((r.counts->global_load_bytes + r.counts->global_store_bytes) / 1e6)
                    : Number{};
       })});
  block.columns.push_back(
      {"sectors/request",
       numbers(rows, per_request(&Counts::global_sectors, &Counts::global_requests))});
  block.columns.push_back(
      {"wavefronts/request",
       numbers(rows, per_request(&Counts::shared_wavefronts, &Counts::shared_requests))});
  whole("barriers", &Counts::barriers);
  whole("shuffles", &Counts::shuffles);
}

Block make_block(const std::vector<const Row*>& rows) {
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
      error.cells.push_back(spent ? fmt::format("{:.2f}", *spent) : "–");
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
  bool times = false, counts = false, prior = false, yardstick = false;
  for (const Row& row : results.rows) {
    times = times || row.time;
    counts = counts || row.counts;
    prior = prior || row.role == Role::prior;
    yardstick = yardstick || row.role == Role::yardstick;
  }
  std::string text =
      "right: every checked element is within its error budget. error: the worst element's error "
      "as "
      "a share of that budget. extra MB: workspace.";
  if (times) {
    text +=
        " ms: median of single runs. × prior: the time of the rung before / this time. % of limit: "
        "the time the least work would take at the ceiling that binds / this time. predicted: from "
        "the kernel's own counts, with the ceiling that is slowest.";
  }
  if (counts) {
    text +=
        " global MB: bytes loaded and stored. sectors/request: 32-byte sectors a warp's access to "
        "global memory touches; wavefronts/request: passes its access to shared memory takes (1 is "
        "free of bank conflicts). barriers: summed over blocks; shuffles: over warps. The emulator "
        "counts; it has no clock.";
  }
  if (prior) text += " <: the stage before.";
  if (yardstick) text += " *: a yardstick, a library doing the same job.";
  return wrapped(text, 2);
}

}  // namespace

std::string text_table(const Results& results) {
  std::string text = results.program + " on " + machine(results) + "\n";
  text += wrapped(ceilings_line(results.ceilings), 0);
  for (const std::vector<const Row*>& rows : by_problem(results)) {
    const Row& first = *rows.front();
    const Work work = minimum_work(first.problem);
    text += fmt::format("\n{}: {}, at least {:.3g} GFLOP and {:.3g} MB\n", first.config,
                        to_string(first.problem), work.flops / 1e9, work.bytes / 1e6);
    const Block block = make_block(rows);
    text += render(block.columns, block.notes);
  }
  return text + "\n" + legend(results);
}

std::string compare_table(const Results& a, const Results& b) {
  std::string text = "a: " + machine(a) + "\nb: " + machine(b) + "\n";
  std::size_t shared = 0;
  for (const std::vector<const Row*>& rows : by_problem(a)) {
    std::vector<const Row*> left, right;
    for (const Row* row : rows) {
      const auto other = std::find_if(b.rows.begin(), b.rows.end(), [&](const Row& candidate) {
        return candidate.stage == row->stage && candidate.variant == row->variant &&
               same_problem(candidate, *row);
      });
      if (other == b.rows.end()) continue;
      left.push_back(row);
      right.push_back(&*other);
    }
    if (left.empty()) continue;
    shared += left.size();

    Column name{"variant", {}, true};
    std::vector<std::optional<double>> ratios;
    for (std::size_t i = 0; i < left.size(); ++i) {
      name.cells.push_back(left[i]->stage + "/" + left[i]->variant);
      const std::optional<double> before = median_ms(*left[i]), after = median_ms(*right[i]);
      ratios.push_back(before && after ? share(*before, *after) : std::nullopt);
    }
    const auto verdict = [](const std::vector<const Row*>& side) {
      std::vector<std::string> cells;
      for (const Row* row : side) {
        cells.push_back(!row->refused.empty() ? "refused" : row->error.ok ? "yes" : "NO");
      }
      return cells;
    };
    const std::vector<Column> columns{std::move(name),
                                      {"a right", verdict(left), true},
                                      {"b right", verdict(right), true},
                                      {"a ms", numbers(left, median_ms)},
                                      {"b ms", numbers(right, median_ms)},
                                      {"a/b", aligned(ratios)}};
    text += fmt::format("\n{}: {}\n", rows.front()->config, to_string(rows.front()->problem)) +
            render(columns);
  }
  if (shared == 0) return text + "\nThe two files have no row in common.\n";
  const auto alone = [](std::size_t rows, const char* file) {
    return rows == 0 ? "" : fmt::format(" {} row(s) are in {} only.", rows, file);
  };
  return text + "\n" +
         wrapped("a/b: how many times faster b is." + alone(a.rows.size() - shared, "a") +
                     alone(b.rows.size() - shared, "b"),
                 2);
}

namespace {

// What a heat map paints: the time, or what stands for it when there is no clock.
std::optional<double> heat(const Row& row) {
  if (!row.refused.empty() || !row.error.ok) return std::nullopt;
  if (row.time) return row.time->primary.median_ms;
  if (!row.counts) return std::nullopt;
  return (row.counts->global_load_bytes + row.counts->global_store_bytes) / 1e6;
}

// Darker is better: within 5 %, 25 % or twice of the best.
const char* shade(double value, double best) {
  if (value <= 1.05 * best) return "█";
  if (value <= 1.25 * best) return "▓";
  return value <= 2 * best ? "▒" : "░";
}

std::string one_map(const std::vector<const Row*>& rows, std::span<const TilePoint> tiles) {
  struct Cell {
    bool tried = false;
    std::optional<double> value;
    int threads = 0;
  };
  std::map<int, std::map<int, Cell>> cells;  // [block_m][block_n]
  std::set<int> all_n;
  double best = INFINITY;
  bool timed = false;
  for (const TilePoint& tile : tiles) {
    for (const Row* row : rows) {
      if (row->variant != tile.variant.name) continue;
      Cell& cell = cells[tile.block_m][tile.block_n];
      all_n.insert(tile.block_n);
      cell.tried = true;
      timed = timed || row->time;
      const std::optional<double> value = heat(*row);
      if (value && (!cell.value || *value < *cell.value)) {
        cell.value = value;
        cell.threads = tile.threads;
        best = std::min(best, *value);
      }
    }
  }
  if (cells.empty()) return "";

  std::vector<std::optional<double>> values;  // of all cells together, so that they line up
  for (auto& [m, row] : cells) {
    for (int n : all_n) values.push_back(row[n].value);
  }
  const std::vector<std::string> texts = aligned(values);
  Column names{"BLOCK_M \\ BLOCK_N", {}};
  std::vector<Column> columns;
  for (int n : all_n) columns.push_back({std::to_string(n), {}});
  std::size_t at = 0;
  for (auto& [m, row] : cells) {
    names.cells.push_back(std::to_string(m));
    for (Column& column : columns) {
      const Cell& cell = row[std::stoi(column.title)];
      column.cells.push_back(
          cell.value   ? fmt::format("{} {} /{}", shade(*cell.value, best), texts[at], cell.threads)
          : cell.tried ? "none"
                       : "");
      ++at;
    }
  }
  columns.insert(columns.begin(), std::move(names));
  const Row& first = *rows.front();
  return fmt::format(
             "{}: {}, {}\n", first.config, to_string(first.problem),
             timed ? "median ms" : "MB of global memory traffic (the emulator has no clock)") +
         render(columns) + "\n";
}

}  // namespace

std::string heat_map(const Results& results, std::span<const TilePoint> tiles) {
  std::string text;
  for (const std::vector<const Row*>& rows : by_problem(results)) text += one_map(rows, tiles);
  return text + wrapped(
                    "After the slash: the best number of threads. █ within 5 % of the best, ▓ "
                    "within 25 %, ▒ within 2x, ░ slower; none: refused or wrong.",
                    2);
}

}  // namespace al
