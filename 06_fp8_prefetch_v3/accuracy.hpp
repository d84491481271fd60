// How far 8 bits are from the truth, and how far theory says they should be.
#pragma once

#include <span>
#include <vector>

#include "06_fp8_prefetch_v3/kernels.hpp"
#include "common/data.hpp"

namespace al::fp8 {

struct Setting {
  Quantisation how = {};
  bool scale_P = true;
};

// Of O, over the rows that a check looks at (rows_to_check).
struct Errors {
  double whole = 0;        // ||O - exact|| / ||exact|| over all of them
  double worst_row = 0;    // the same of the worst row
  double max_abs = 0;      // largest |O - exact|
  double predicted = 0;    // `whole` as the format's step sizes predict it
  double worst_ratio = 0;  // the largest that a row's error is of the row's predicted one
};

struct Accuracy {
  Errors kernel;  // against float64 from the same 8-bit inputs: what P's rounding and sums cost
  Errors total;   // against float64 from the 16-bit inputs: the inputs' rounding as well
};

// For each setting: quantises the problem's inputs (fp16 or bf16), runs this device's kernel on
// them and compares.
std::vector<Accuracy> measure_accuracy(const Problem& p, Distribution data,
                                       std::span<const Setting> settings);

}  // namespace al::fp8
