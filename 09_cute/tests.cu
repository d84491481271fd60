// Chapter 09 on a GPU or in the emulator: each kernel against the float64 oracle.
#include <string>
#include <vector>

#include "09_cute/stage.hpp"
#include "common/tests/stage_checks.hpp"

using namespace al;

namespace {

// The shapes this stage supports, in both of its dtypes.
std::vector<Problem> shapes() {
  std::vector<Problem> problems;
  for (Problem p : awkward_shapes(Operation::attention)) {
    if (p.head_dim == 16) p.head_dim = 32;
    for (const DType dtype : {DType::fp16, DType::bf16}) {
      p.dtype = dtype;
      problems.push_back(p);
    }
  }
  return problems;
}

}  // namespace

TEST_CASE("every variant is right on every awkward shape, in fp16 and bf16") {
  for (const Variant& variant : stage_09_cute.variants) {
    for (const Problem& p : shapes()) check_variant(variant, p, Distribution::normal);
  }
}

TEST_CASE("spikes of 20 sigma and logits in the thousands stay within budget") {
  for (const Variant& variant : stage_09_cute.variants) {
    for (Problem p : shapes()) {
      p.scale = 10;
      check_variant(variant, p, Distribution::outliers);
    }
  }
}
