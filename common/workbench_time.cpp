// Workbench::time, apart from the rest because only a GPU has an answer.
#include "common/workbench.hpp"

namespace al {

Benchmark Workbench::time(const Variant& variant, int samples, ErrorReport& error) {
  for (BufferSet& set : sets_) prepare(set, variant);
  const Benchmark benchmark = al::benchmark(
      [&](int set, Stream stream) { variant.launch(problem_, sets_[set].arguments(), stream); },
      static_cast<int>(sets_.size()), samples);
  const ErrorReport after = compare_with_oracle(sets_.back(), variant);
  if (error.ok && !after.ok) {
    error = after;
    error.why = "right in a single run, wrong after the timed loop: " + after.why;
  }
  return benchmark;
}

}  // namespace al
