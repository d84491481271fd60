#include "common/check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace al {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// What the budget adds to twice the plain error, so that a plain result that happens to be exact
// (one key; one element) does not forbid any rounding at all. In units of row_scale; the reasons
// are in docs/numerics.md.
double epsilon(const Problem& problem) {
  if (problem.operation == Operation::scores) return 0x1p-18;
  // What is stored in a narrow dtype on the way: P, O, or both; of 8 bits only P.
  const int roundings = problem.operation == Operation::attention ? 2 : 1;
  switch (problem.dtype) {
    case DType::fp16:
      return roundings * 0x1p-11;  // to within 2^-11 each
    case DType::bf16:
      return roundings * 0x1p-8;
    case DType::fp32:
      return 0x1p-20;  // fast exponentials and divisions, a few units in the 24th place
    case DType::e4m3:
      return 0x1p-4 + 0x1p-11;
    case DType::e5m2:
      return 0x1p-3 + 0x1p-11;
  }
  return 0;
}

double lse_tolerance(double plain_error, double exact) {
  return 2 * plain_error + 0x1p-18 * std::max(1.0, std::abs(exact));
}

// The 0xff bytes of DeviceBuffer::poison() in fp32, and in fp16 and bf16 widened to it. The NaNs
// that arithmetic makes have fewer leading ones, on a GPU and on a CPU.
bool never_written(float value) { return std::bit_cast<std::uint32_t>(value) >= 0xffff0000; }

std::string describe(float got) {
  if (never_written(got)) return "was never written";
  return fmt::format("got {:.6g}", got);
}

std::string place(const Problem& problem, std::int64_t row) {
  const std::int64_t head = row / problem.seq;
  return fmt::format("row {} (batch {}, head {}, query {})", row, head / problem.heads,
                     head % problem.heads, row % problem.seq);
}

// |got - exact|; nothing where both are the same infinity, infinite where either is a NaN.
double error_of(double got, double exact) {
  if (got == exact) return 0;
  const double error = std::abs(got - exact);
  return std::isnan(error) ? kInfinity : error;
}

bool within(double error, double allowed) {
  return error == 0 || (std::isfinite(error) && error <= allowed);
}

double ratio(double error, double scale) { return error == 0 ? 0 : error / scale; }

// Largest |plain - exact| / row_scale. What overflowed the plain implementation's dtype sets no
// budget.
double plain_scaled(const Problem& problem, const ReferenceRows& reference) {
  double largest = 0;
  for (std::size_t r = 0; r < reference.rows.size(); ++r) {
    for (int c = 0; c < reference.visible(problem, r); ++c) {
      const std::size_t at = r * reference.columns + c;
      const double scaled =
          ratio(error_of(reference.plain[at], reference.exact[at]), reference.row_scale[r]);
      if (std::isfinite(scaled)) largest = std::max(largest, scaled);
    }
  }
  return largest;
}

// How far a score may be off, as a part of score_scale, because its products are added in another
// order, or fused. The plain implementation pays that too, but with luck of its own: where fp32
// scores are in the thousands it is all that the error is made of. Narrower dtypes round P more
// coarsely than that.
double score_rounding(const Problem& problem) {
  const bool on_the_way =
      reads(problem.operation, Tensor::q) && problem.operation != Operation::scores;
  return on_the_way && problem.dtype == DType::fp32 ? 0x1p-18 : 0;
}

// An error of every score makes one of the same size, relatively, of every weight.
double slack_of_scores(const Problem& problem, const ReferenceRows& reference, std::size_t r,
                       const Slack& slack) {
  const double part = slack.scores + score_rounding(problem);
  return (part == 0 ? 0 : part * reference.score_scale[r]) +
         (slack.products == 0 ? 0 : slack.products * reference.product_scale[r]);
}

void compare_result(const Problem& problem, const ReferenceRows& reference,
                    const std::vector<float>& result, const Slack& slack, ErrorReport& report) {
  const double plain_budget = 2 * plain_scaled(problem, reference) + epsilon(problem);
  for (std::size_t r = 0; r < reference.rows.size(); ++r) {
    const double row_scale = reference.row_scale[r];
    const double budget = plain_budget + slack.out + slack_of_scores(problem, reference, r, slack);
    report.budget = std::max(report.budget, budget);
    double error_squares = 0, exact_squares = 0;
    for (int c = 0; c < reference.visible(problem, r); ++c) {
      const std::size_t at = r * reference.columns + c;
      const double exact = reference.exact[at];
      const double error = error_of(result[at], exact);
      error_squares += error * error;
      exact_squares += exact * exact;
      report.max_abs = std::max(report.max_abs, error);
      report.scaled = std::max(report.scaled, ratio(error, row_scale));

      const bool right = within(error, budget * row_scale);
      if (!right && report.why.empty()) {
        report.why = fmt::format("{}, column {}: {}, expected {:.6g}",
                                 place(problem, reference.rows[r]), c, describe(result[at]), exact);
        if (std::isfinite(error)) {
          report.why += fmt::format(" (off by {:.3g}, allowed {:.3g})", error, budget * row_scale);
        }
      }
    }
    report.row_rel_l2 =
        std::max(report.row_rel_l2, ratio(std::sqrt(error_squares), std::sqrt(exact_squares)));
  }
}

void compare_lse(const Problem& problem, const ReferenceRows& reference,
                 const std::vector<float>& lse, const Slack& slack, ErrorReport& report) {
  double plain_error = 0;
  for (std::size_t r = 0; r < reference.rows.size(); ++r) {
    const double error = error_of(reference.plain_lse[r], reference.exact_lse[r]);
    if (std::isfinite(error)) plain_error = std::max(plain_error, error);
  }
  for (std::size_t r = 0; r < reference.rows.size(); ++r) {
    const double exact = reference.exact_lse[r];
    const double error = error_of(lse[r], exact);
    report.lse_max_abs = std::max(report.lse_max_abs, error);

    const double allowed =
        lse_tolerance(plain_error, exact) + slack_of_scores(problem, reference, r, slack);
    const bool right = within(error, allowed);
    if (!right && report.why.empty()) {
      report.why = fmt::format("LSE of {}: {}, expected {:.8g}", place(problem, reference.rows[r]),
                               describe(lse[r]), exact);
      if (std::isfinite(error)) {
        report.why += fmt::format(" (off by {:.3g}, allowed {:.3g})", error, allowed);
      }
    }
  }
}

}  // namespace

ErrorReport compare(const Problem& problem, const ReferenceRows& reference,
                    const std::vector<float>& result, const std::vector<float>& lse,
                    const Slack& slack) {
  const bool lse_fits = lse.empty() || lse.size() == reference.exact_lse.size();
  if (result.size() != reference.exact.size() || !lse_fits) {
    throw std::invalid_argument("compare(): result and lse must have the reference's rows.");
  }
  ErrorReport report;
  compare_result(problem, reference, result, slack, report);
  if (!lse.empty()) compare_lse(problem, reference, lse, slack, report);
  report.ok = report.why.empty();
  return report;
}

}  // namespace al
