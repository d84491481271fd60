// lab_judge JOB.json FOLDER: says of each case of a run whether its result is right and, where it
// is not, which element is the first wrong one and what the mistake looks like. One JSON object to
// stdout. Holds no code of a student's.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "common/error.hpp"
#include "common/lab/job.hpp"
#include "common/lab/mistakes.hpp"
#include "common/lab/oracle.hpp"
#include "common/npy.hpp"

namespace al::lab {
namespace {

using Json = nlohmann::json;

// 0xff bytes, also when widened from 16 bits: nobody has written here.
bool never_written(float value) { return std::bit_cast<std::uint32_t>(value) >= 0xffff0000; }

// What rounding alone may do to an element, in units of row_scale, on top of twice what it does to
// the plain implementation.
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

bool close(double got, double expected, double allowed) {
  return got == expected || std::abs(got - expected) <= allowed;  // false for a NaN
}

// The result of a run beside the answer.
class Comparison {
 public:
  Comparison(const Case& c, const Rules& rules, int block_m, int block_n, std::vector<float> got)
      : case_(c),
        rules_(rules),
        block_m_(block_m),
        block_n_(block_n),
        got_(std::move(got)),
        inputs_(make_inputs(c.problem, c.data, c.seed)),
        exact_(answer<double>(c, inputs_, rules, block_n)) {
    const Answer plain = answer<float>(c, inputs_, rules, block_n);
    double largest = 0;
    for_each([&](std::size_t at, std::int64_t row) {
      const double error = std::abs(plain.values[at] - exact_.values[at]) / exact_.row_scale[row];
      if (std::isfinite(error)) largest = std::max(largest, error);
    });
    budget_ = 2 * largest + epsilon(c.problem);
    if (got_.size() != exact_.values.size()) throw usage_error("The result has another size.");
    for_each([&](std::size_t at, std::int64_t row) {
      ++elements_;
      if (close(got_[at], exact_.values[at], budget_ * exact_.row_scale[row])) return;
      wrong_.push_back(at);
      if (never_written(got_[at]))
        ++unwritten_;
      else if (std::isnan(got_[at]))
        ++nans_;
    });
  }

  Json verdict() const {
    Json json = {{"passed", wrong_.empty()}};
    if (wrong_.empty()) return json;
    const std::size_t at = wrong_.front();
    const std::int64_t row = at / exact_.columns;
    const Problem& p = case_.problem;
    json["wrong"] = wrong_.size();
    json["of"] = elements_;
    json["first"] = {{"row", row % p.seq},
                     {"column", at % exact_.columns},
                     {"head", row / p.seq % p.heads},
                     {"batch", row / p.seq / p.heads}};
    json["message"] = fmt::format("{} of {} elements are wrong. The first: {}{}", wrong_.size(),
                                  elements_, place(at), value(at));
    json["where"] = pattern();
    if (const std::string why = cause(); !why.empty()) json["cause"] = why;
    return json;
  }

  // The LSE, where the answer has one.
  Json lse_verdict(const std::vector<float>& lse) const {
    const Problem& p = case_.problem;
    if (lse.size() != exact_.lse.size()) return {{"passed", true}};
    const Answer plain = answer<float>(case_, inputs_, rules_, block_n_);
    const double slack = p.dtype == DType::fp32 ? 1e-5 : is_fp8(p.dtype) ? 5e-2 : 2e-3;
    for (std::size_t row = 0; row < lse.size(); ++row) {
      const double exact = exact_.lse[row];
      const double error = std::abs(plain.lse[row] - exact);
      if (close(lse[row], exact,
                2 * (std::isfinite(error) ? error : 0) + slack * std::max(1.0, std::abs(exact))))
        continue;
      std::string text = never_written(lse[row])
                             ? "was never written"
                             : fmt::format("is {:.6g}, it should be {:.6g}", lse[row], exact);
      return {{"passed", false},
              {"message", fmt::format("LSE of row {} (head {}) {}.", row % p.seq,
                                      row / p.seq % p.heads, text)}};
    }
    return {{"passed", true}};
  }

 private:
  // f(element, row) for the elements that are part of the result.
  template <typename F>
  void for_each(F&& f) const {
    for (std::size_t at = 0; at < exact_.values.size(); ++at) {
      if (exact_.counts[at]) f(at, static_cast<std::int64_t>(at / exact_.columns));
    }
  }

  std::string place(std::size_t at) const {
    const Problem& p = case_.problem;
    const std::int64_t row = at / exact_.columns, column = at % exact_.columns;
    std::string text = fmt::format("row {}, column {}", row % p.seq, column);
    if (p.heads > 1 || p.batch > 1) text += fmt::format(" of head {}", row / p.seq % p.heads);
    if (p.batch > 1) text += fmt::format(" of sequence {}", row / p.seq / p.heads);
    return text;
  }

  std::string value(std::size_t at) const {
    if (never_written(got_[at])) {
      return fmt::format(" was never written; it should be {:.6g}.", exact_.values[at]);
    }
    return fmt::format(" is {:.6g}, it should be {:.6g}.", got_[at], exact_.values[at]);
  }

  // What the wrong elements have in common.
  std::string pattern() const {
    const Problem& p = case_.problem;
    if (unwritten_ == elements_) return "Nothing was ever written.";
    if (wrong_.size() == elements_ && nans_ == elements_) return "Every element is NaN.";
    if (wrong_.size() == elements_) return "Every element is wrong.";
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
      } else {
        text = fmt::format("in {} of the {} {}s", set.size(), all, what);
        for (const int step : {2, 4, 8, 16, 32}) {
          const bool same =
              std::ranges::all_of(set, [&](auto x) { return x % step == first % step; });
          if (same)
            text += fmt::format(", all of them {} more than a multiple of {}", first % step, step);
          if (same) break;
        }
      }
      if (tile > 0 && first % tile == 0 && first > 0)
        text += fmt::format(" (a tile begins at {})", first);
      said.push_back(text);
    };
    range("row", rows, p.seq, block_m_);
    range("column", columns, exact_.columns, p.operation == Operation::attention ? 0 : block_n_);
    range("head", heads, p.heads, 0);
    std::string text;
    if (!said.empty())
      text = "All wrong ones are " + fmt::format("{}", fmt::join(said, " and ")) + ".";
    if (unwritten_ > 0 && unwritten_ == wrong_.size())
      text += " None of them was ever written.";
    else if (unwritten_ > 0)
      text += fmt::format(" {} of them were never written.", unwritten_);
    if (nans_ > 0) text += fmt::format(" {} are NaN.", nans_);
    return text;
  }

  // The mistake whose answer is what the student's kernel wrote.
  std::string cause() const {
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
        const double allowed = 2 * budget_ * std::max(exact_.row_scale[row], a.row_scale[row]) +
                               epsilon(case_.problem) * std::abs(a.values[at]);
        same += close(got_[at], a.values[at], allowed);
      });
      for (const std::size_t at : wrong_) {
        explained += !close(a.values[at], exact_.values[at],
                            budget_ * exact_.row_scale[at / exact_.columns]);
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
  std::string factor_of_rows() const {
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
        agree += close(got_[wrong_[n]], expected,
                       2 * std::abs(factor) * budget_ * exact_.row_scale[row]);
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

  const Case& case_;
  const Rules& rules_;
  int block_m_, block_n_;
  std::vector<float> got_;
  HostInputs inputs_;
  Answer exact_;
  double budget_ = 0;
  std::size_t elements_ = 0, unwritten_ = 0, nans_ = 0;
  std::vector<std::size_t> wrong_;
};

Json judge_case(const Job& job, const std::string& folder, int n) {
  const Case& c = job.cases[n];
  Json json = {{"name", to_string(c.problem)}, {"passed", false}};
  std::ifstream file(state_file(folder, n));
  if (!file) {
    json["missing"] = true;
    json["message"] = "The program ended before it came to this problem.";
    return json;
  }
  const Json state = Json::parse(file);
  // The student's program may have written anything here.
  if (state.contains("ms") && state["ms"].is_number()) json["ms"] = state["ms"];
  if (state.contains("counts") && state["counts"].is_object()) {
    for (const auto& [name, count] : state["counts"].items()) {
      if (count.is_number_integer()) json["counts"][name] = count;
    }
  }
  if (state.contains("report")) {
    constexpr std::size_t kLongest = 8000;
    json["report"] = json["message"] = state["report"].get<std::string>().substr(0, kLongest);
    return json;
  }
  const Comparison comparison(c, job.rules, job.block_m, job.block_n,
                              read_npy(result_file(folder, n)));
  json.update(comparison.verdict());
  if (json["passed"] && std::filesystem::exists(lse_file(folder, n))) {
    json.update(comparison.lse_verdict(read_npy(lse_file(folder, n))));
  }
  return json;
}

}  // namespace
}  // namespace al::lab

int main(int argc, char** argv) {
  using namespace al::lab;
  try {
    if (argc != 3) throw al::usage_error("Usage: lab_judge JOB.json FOLDER");
    const Job job = read_job(argv[1]);
    Json cases = Json::array();
    for (int n = 0; n < static_cast<int>(job.cases.size()); ++n) {
      cases.push_back(judge_case(job, argv[2], n));
    }
    std::printf(
        "%s\n",
        Json{{"cases", cases}}.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
