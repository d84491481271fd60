#include "common/lab/comparison.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <set>

#include "common/error.hpp"
#include "common/lab/mistakes.hpp"

namespace al::lab {
namespace {

// 0xff bytes, also when widened from 16 bits: nobody has written here.
bool never_written(float value) { return std::bit_cast<std::uint32_t>(value) >= 0xffff0000; }

// What rounding on the way may do to an element, in units of row_scale, on top of twice what it
// does to the plain implementation.
double epsilon(const Problem& p) {
  if (p.operation == Operation::scores) return 0x1p-18;
  switch (p.dtype) {
    case DType::fp32:
      return 0x1p-17;
    case DType::fp16:
      return 0x1p-9;
    case DType::bf16:
      return 0x1p-6;
    default:
      return 0x1p-3;
  }
}

// What the dtype of the result does to an element, as a part of it: twice.
double last_place(DType dtype) {
  return dtype == DType::fp32 ? 0x1p-23 : dtype == DType::fp16 ? 0x1p-10 : 0x1p-7;
}

// "0 to 30", "64 to 94": the runs of neighbours in a set of numbers.
std::vector<std::string> runs_of(const std::set<std::int64_t>& set) {
  std::vector<std::string> runs;
  for (auto at = set.begin(); at != set.end();) {
    const std::int64_t first = *at;
    std::int64_t last = first;
    while (++at != set.end() && *at == last + 1) last = *at;
    runs.push_back(first == last ? std::to_string(first) : fmt::format("{} to {}", first, last));
  }
  return runs;
}

bool close(double got, double expected, double allowed) {
  return got == expected || std::abs(got - expected) <= allowed;  // false for a NaN
}

}  // namespace

// f(element, row) for the elements that are part of the result.
template <typename F>
void Comparison::for_each(F&& f) const {
  for (std::size_t at = 0; at < exact_.values.size(); ++at) {
    if (exact_.counts[at]) f(at, static_cast<std::int64_t>(at / exact_.columns));
  }
}

double Comparison::allowed(std::size_t at) const {
  return budget_ * exact_.row_scale[at / exact_.columns] +
         last_place(case_.problem.out_dtype()) * std::abs(exact_.values[at]);
}

Comparison::Comparison(const Case& c, const Rules& rules, int block_m, int block_n,
                       std::vector<float> got)
    : case_(c),
      rules_(rules),
      block_m_(block_m),
      block_n_(block_n),
      got_(std::move(got)),
      inputs_(make_inputs(c.problem, c.data, c.seed)),
      exact_(answer<double>(c, inputs_, rules, block_n)) {
  if (got_.size() != exact_.values.size()) throw usage_error("The result has another size.");
  const Answer plain = answer<float>(c, inputs_, rules, block_n);
  double largest = 0;
  for_each([&](std::size_t at, std::int64_t row) {
    const double error = std::abs(plain.values[at] - exact_.values[at]) / exact_.row_scale[row];
    if (std::isfinite(error)) largest = std::max(largest, error);
  });
  budget_ = 2 * largest + epsilon(c.problem);
  for_each([&](std::size_t at, std::int64_t) {
    ++elements_;
    if (close(got_[at], exact_.values[at], allowed(at))) return;
    wrong_.push_back(at);
    if (never_written(got_[at])) {
      ++unwritten_;
    } else if (std::isnan(got_[at])) {
      ++nans_;
    }
  });
}

Comparison::Place Comparison::first() const {
  const Problem& p = case_.problem;
  const auto row = static_cast<std::int64_t>(wrong_.front() / exact_.columns);
  return {.batch = row / p.seq / p.heads,
          .head = row / p.seq % p.heads,
          .row = row % p.seq,
          .column = static_cast<std::int64_t>(wrong_.front() % exact_.columns)};
}

std::string Comparison::message() const {
  const Problem& p = case_.problem;
  const Place place = first();
  std::string where = fmt::format("row {}, column {}", place.row, place.column);
  if (p.heads > 1 || p.batch > 1) where += fmt::format(" of head {}", place.head);
  if (p.batch > 1) where += fmt::format(" of sequence {}", place.batch);
  const double got = got_[wrong_.front()], expected = exact_.values[wrong_.front()];
  const std::string what = never_written(got_[wrong_.front()])
                               ? fmt::format("was never written; it should be {:.6g}", expected)
                               : fmt::format("is {:.6g}, it should be {:.6g}", got, expected);
  return fmt::format("{} of {} elements are wrong. The first: {} {}.", wrong_.size(), elements_,
                     where, what);
}

std::string Comparison::pattern() const {
  const Problem& p = case_.problem;
  if (unwritten_ == elements_) return "Nothing was ever written.";
  if (wrong_.size() == elements_ && nans_ == elements_) return "Every element is NaN.";
  std::vector<std::string> said;
  std::set<std::int64_t> rows, columns, heads;
  for (const std::size_t at : wrong_) {
    const std::int64_t row = at / exact_.columns;
    rows.insert(row % p.seq);
    columns.insert(at % exact_.columns);
    heads.insert(row / p.seq % p.heads);
  }
  const auto range = [&](const char* what, const std::set<std::int64_t>& set, std::int64_t all,
                         int tile) {
    if (std::ssize(set) == all) return;
    const std::int64_t first = *set.begin(), last = *set.rbegin();
    std::string text;
    if (std::ssize(set) == 1) {
      text = fmt::format("in {} {}", what, first);
    } else if (last - first + 1 == std::ssize(set)) {
      text = fmt::format("in {}s {} to {}", what, first, last);
      if (last == all - 1) text += ", the last";
    } else if (const auto runs = runs_of(set); runs.size() <= 4 && set.size() > 2 * runs.size()) {
      text = fmt::format("in {}s {}", what, fmt::join(runs, ", "));
    } else {
      text = fmt::format("in {} of the {} {}s", set.size(), all, what);
      for (const int step : {32, 16, 8, 4, 2}) {
        if (set.size() < 3 ||
            !std::ranges::all_of(set, [&](auto x) { return x % step == first % step; })) {
          continue;
        }
        text += first % step == 0 ? fmt::format(", all of them multiples of {}", step)
                                  : fmt::format(", all of them {} more than a multiple of {}",
                                                first % step, step);
        break;
      }
    }
    if (tile > 0 && first % tile == 0 && first > 0)
      text += fmt::format(" (a tile begins at {})", first);
    said.push_back(text);
  };
  range("row", rows, p.seq, block_m_);
  range("column", columns, exact_.columns, p.operation == Operation::attention ? 0 : block_n_);
  range("head", heads, p.heads, 0);
  std::string text = wrong_.size() == elements_ ? "Every element is wrong." : "";
  if (!said.empty() && text.empty())
    text = "All wrong ones are " + fmt::format("{}", fmt::join(said, " and ")) + ".";
  if (unwritten_ > 0 && unwritten_ == wrong_.size())
    text += " None of them was ever written.";
  else if (unwritten_ > 0)
    text += fmt::format(" {} of them were never written.", unwritten_);
  if (nans_ > 0) text += fmt::format(" {} are NaN.", nans_);
  return text;
}

std::string Comparison::cause() const {
  if (unwritten_ > wrong_.size() / 2) return "";
  if (nans_ > wrong_.size() / 2) {
    return "NaN comes from -inf - (-inf) in a row that sees no key, from 0 * inf, from inf / inf "
           "where "
           "the maximum was not subtracted, or from reading what nobody has written.";
  }
  double best = 0;
  std::string sentence;
  for (const NamedMistake& m : usual_mistakes(case_, rules_, block_m_, block_n_)) {
    const Answer a = answer<double>(case_, inputs_, rules_, block_n_, m.mistake);
    std::size_t same = 0, explained = 0;
    for_each([&](std::size_t at, std::int64_t row) {
      const double within = 2 * budget_ * std::max(exact_.row_scale[row], a.row_scale[row]) +
                            epsilon(case_.problem) * std::abs(a.values[at]);
      same += close(got_[at], a.values[at], within);
    });
    for (const std::size_t at : wrong_) {
      explained +=
          !close(a.values[at], exact_.values[at], budget_ * exact_.row_scale[at / exact_.columns]);
    }
    const double share = static_cast<double>(same) / static_cast<double>(elements_);
    if (share > 0.99 && explained > wrong_.size() / 2 && share > best + 1e-9) {
      best = share;
      sentence = "What you wrote equals the answer " + m.sentence + ".";
    }
  }
  if (!sentence.empty()) return sentence;
  // A factor that is the same everywhere.
  double factor = 0;
  std::size_t agree = 0;
  for (const std::size_t at : wrong_) {
    const double ratio = got_[at] / exact_.values[at];
    if (factor == 0 && std::isfinite(ratio)) factor = ratio;
    agree += std::abs(ratio - factor) <= 1e-2 * std::abs(factor);
  }
  if (std::isfinite(factor) && agree > wrong_.size() * 0.9) {
    if (factor == 0) return "Every one of them is zero.";
    return fmt::format("Every one of them is {:.4g} times what it should be.", factor);
  }
  return factor_of_rows();
}

// A factor that is the same in each row: its weights are right, their sum is not.
std::string Comparison::factor_of_rows() const {
  if (case_.problem.operation == Operation::scores) return "";
  std::size_t agree = 0;
  double first = 0;
  for (std::size_t begin = 0; begin < wrong_.size();) {
    const std::int64_t row = wrong_[begin] / exact_.columns;
    std::size_t end = begin, largest = begin;
    for (; end < wrong_.size() && std::int64_t(wrong_[end] / exact_.columns) == row; ++end) {
      if (std::abs(exact_.values[wrong_[end]]) > std::abs(exact_.values[wrong_[largest]]))
        largest = end;
    }
    const double factor = got_[wrong_[largest]] / exact_.values[wrong_[largest]];
    if (begin == 0) first = factor;
    for (std::size_t n = begin; n < end; ++n) {
      const double expected = factor * exact_.values[wrong_[n]];
      agree +=
          close(got_[wrong_[n]], expected, 2 * std::abs(factor) * budget_ * exact_.row_scale[row]);
    }
    begin = end;
  }
  if (!std::isfinite(first) || agree < wrong_.size() * 0.95) return "";
  return fmt::format(
      "In each row all of them are off by one factor, another in each row (here {:.4g}): the "
      "weights "
      "of the keys are right in proportion, but the sum l that divides them is not.",
      first);
}

std::string Comparison::wrong_lse(const std::vector<float>& lse) const {
  const Problem& p = case_.problem;
  if (exact_.lse.size() != lse.size()) return "";
  const Answer plain = answer<float>(case_, inputs_, rules_, block_n_);
  const double slack = p.dtype == DType::fp32 ? 1e-5 : is_fp8(p.dtype) ? 5e-2 : 2e-3;
  for (std::size_t row = 0; row < lse.size(); ++row) {
    const double exact = exact_.lse[row], plain_error = std::abs(plain.lse[row] - exact);
    const double allowed =
        2 * (std::isfinite(plain_error) ? plain_error : 0) + slack * std::max(1.0, std::abs(exact));
    if (close(lse[row], exact, allowed)) continue;
    return fmt::format(
        "O is right, but the LSE of row {} (head {}) {}.", row % p.seq, row / p.seq % p.heads,
        never_written(lse[row]) ? std::string("was never written")
                                : fmt::format("is {:.6g}, it should be {:.6g}", lse[row], exact));
  }
  return "";
}

}  // namespace al::lab
