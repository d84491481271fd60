// Is it right? The error of a result against the oracle, and the budget it must keep.
#pragma once

#include <string>
#include <vector>

#include "common/reference.hpp"

namespace al {

struct ErrorReport {
  double max_abs = 0;      // largest |result - exact|
  double row_rel_l2 = 0;   // worst row of ||result - exact|| / ||exact||; the literature's figure
  double scaled = 0;       // largest |result - exact| / row_scale: what the budget is about
  double budget = 0;       // twice the plain implementation's `scaled`, plus epsilon and slack
  double lse_max_abs = 0;  // with LSE: largest |lse - exact|
  bool ok = false;
  std::string why;  // when not ok: the first wrong element, where it is, what it should be
};

// What a variant allows itself beyond that, because it rounds where the plain implementation does
// not; with the reason beside it.
struct Slack {
  double scores = 0;    // error of a score, as a part of ReferenceRows::score_scale
  double products = 0;  // the same as a part of ReferenceRows::product_scale
  double out = 0;       // error of an element of O, as a part of row_scale
};

// `result` is [rows, columns] for reference.rows; `lse` is [rows], or empty when not computed.
// Not ok when any element is over budget, NaN, infinite where the oracle is not, or when a row
// without visible keys is not exactly O = 0, LSE = -inf.
ErrorReport compare(const Problem& problem, const ReferenceRows& reference,
                    const std::vector<float>& result, const std::vector<float>& lse = {},
                    const Slack& slack = {});

}  // namespace al
