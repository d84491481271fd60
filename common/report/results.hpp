// What a run found, as plain data: the runner fills it; report_*.cpp write it (text, JSON, CSV) and
// read it back. docs/results/schema.json describes the JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/benchmark.hpp"
#include "common/check.hpp"
#include "common/counts.hpp"
#include "common/options.hpp"
#include "common/roofline.hpp"

namespace al {

struct Row {
  std::string stage, variant, idea;
  Role role = Role::stage;
  std::string config;
  Problem problem;
  std::string refused;  // why it did not run; then nothing below is set
  std::optional<Benchmark> time;
  std::optional<double> tflops, gbps;    // minimum_work over the median time
  std::optional<Limit> limit;            // the ceiling that binds the problem
  std::optional<double> limit_fraction;  // limit.ms / median
  std::optional<double> predicted_ms;    // from the variant's own cost
  std::string predicted_by;              // which ceiling the prediction names
  std::size_t extra_bytes = 0;           // workspace
  ErrorReport error;
  std::string prior;                     // what ratio_to_prior is against: "stage/variant"
  std::optional<double> ratio_to_prior;  // prior ms / this ms
  std::optional<Counts> counts;          // emulator only
};

// Sets ratio_to_prior where both this row and the row that `prior` names have a time, and clears
// `prior` where not. The rows are those of one shape; they may compute different things: a pipeline
// is timed against the pipeline that stops one step before.
void relate_to_priors(std::span<Row> rows);

struct Results {
  std::string program, date, commit;
  DeviceInfo device;
  Ceilings ceilings;
  std::vector<Row> rows;
};

}  // namespace al
