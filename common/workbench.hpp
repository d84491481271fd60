// One problem, set up once, on which any variant can be run, checked and timed: inputs on the
// device in as many copies as the benchmark rotates over, poisoned outputs, and the oracle.
#pragma once

#include <string>
#include <vector>

#include "common/benchmark.hpp"
#include "common/buffer.hpp"
#include "common/check.hpp"
#include "common/data.hpp"
#include "common/stage.hpp"

namespace al {

// Why the device has not enough memory left for the problem; empty: it has. To be asked before the
// inputs are made, which for such a problem would take minutes.
std::string too_large(const Problem& problem, std::size_t workspace_bytes);

class Workbench {
 public:
  // `workspace_bytes`: the largest any variant will ask for.
  Workbench(const Problem& problem, const HostInputs& inputs, std::size_t workspace_bytes);

  // Runs once on poisoned outputs and compares with the oracle.
  ErrorReport check(const Variant& variant);
  // Times it, then compares what the last timed run left with the oracle. `samples` as benchmark().
  Benchmark time(const Variant& variant, int samples, ErrorReport& error);
  // The whole result, and attention's LSE, as fp32, after check().
  std::vector<float> result() const;
  std::vector<float> lse() const;

 private:
  struct BufferSet {
    DeviceBuffer q, k, v, s, p, out, lse, workspace;
    DeviceBuffer q_scale, k_scale, v_scale, kv_len, page_table;  // where the problem has them
    int max_pages = 0;
    Arguments arguments() const;
  };

  // Poisons all that the variant is to write.
  void prepare(BufferSet& set, const Variant& variant) const;
  ErrorReport compare_with_oracle(const BufferSet& set, const Variant& variant) const;

  Problem problem_;
  std::vector<BufferSet> sets_;
  ReferenceRows reference_;
};

}  // namespace al
