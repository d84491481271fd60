#include "common/report/rows.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace al {
namespace {

const char* formula(Operation operation) {
  switch (operation) {
    case Operation::scores:
      return "S = scale Q K^T";
    case Operation::softmax:
      return "P = softmax(S)";
    case Operation::probabilities:
      return "P = softmax(scale Q K^T)";
    case Operation::pv:
      return "O = P V";
    case Operation::attention:
      return "O = softmax(scale Q K^T) V";
  }
  return "?";
}

}  // namespace

bool same_problem(const Row& a, const Row& b) {
  return a.config == b.config && a.problem.operation == b.problem.operation &&
         to_string(a.problem) == to_string(b.problem);
}

std::vector<Rows> by_problem(const Results& results) {
  std::vector<Rows> blocks;
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

std::string heading(const Row& row) {
  return fmt::format("{}: {}, {}", row.config, to_string(row.problem),
                     formula(row.problem.operation));
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

std::optional<double> median_ms(const Row& row) {
  if (!row.time) return std::nullopt;
  return row.time->primary.median_ms;
}

std::optional<double> moved_mb(const Row& row) {
  if (!row.counts) return std::nullopt;
  return (row.counts->global_load_bytes + row.counts->global_store_bytes) / 1e6;
}

std::optional<double> share(double part, double whole) {
  if (!(whole > 0)) return std::nullopt;
  return part / whole;
}

}  // namespace al
