// The result of a run beside the answer: which element is the first wrong one, and what the mistake
// looks like.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "common/lab/job.hpp"
#include "common/lab/oracle.hpp"

namespace al::lab {

class Comparison {
 public:
  // `got` is [rows, columns] of the result as fp32; throws Error(usage) when it has another size.
  Comparison(const Case& c, const Rules& rules, int block_m, int block_n, std::vector<float> got);

  bool right() const { return wrong_.empty(); }
  std::size_t wrong() const { return wrong_.size(); }
  std::size_t elements() const { return elements_; }  // that are part of the result

  struct Place {
    std::int64_t batch, head, row, column;
  };
  // Where something is wrong:
  Place first() const;
  std::string message() const;  // how many, and the first: where, what it is and should be
  std::string pattern() const;  // what the wrong ones have in common; empty: nothing
  std::string cause() const;    // the mistake that gives the same answer; empty: none that is known

  // The same for the LSE, [rows]: a sentence about the first wrong one; empty: all are right.
  std::string wrong_lse(const std::vector<float>& lse) const;

 private:
  template <typename F>
  void for_each(F&& f) const;
  double allowed(std::size_t at) const;
  std::string factor_of_rows() const;

  Case case_;
  Rules rules_;
  int block_m_, block_n_;
  std::vector<float> got_;
  HostInputs inputs_;
  Answer exact_;
  double budget_ = 0;
  std::size_t elements_ = 0, unwritten_ = 0, nans_ = 0;
  std::vector<std::size_t> wrong_;  // in order
};

}  // namespace al::lab
