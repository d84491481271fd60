// Chapter 06 on a GPU or in the emulator.
#include <cmath>
#include <string>
#include <vector>

#include "06_fp8_prefetch_v3/kernels.hpp"
#include "06_fp8_prefetch_v3/prefetch.cuh"
#include "06_fp8_prefetch_v3/stage.hpp"
#include "common/buffer.hpp"
#include "common/tests/stage_checks.hpp"

using namespace al;
using namespace al::fp8;

namespace {

constexpr DType kTensorDTypes[] = {DType::fp16, DType::bf16, DType::e4m3, DType::e5m2};

// The shapes whose D the chapter does not have get one that it has.
std::vector<Problem> shapes() {
  std::vector<Problem> problems = awkward_shapes(Operation::attention);
  for (Problem& p : problems) {
    if (p.head_dim < 64) p.head_dim = 64;
    p.scale = 1 / std::sqrt(double(p.head_dim));
  }
  return problems;
}

}  // namespace

TEST_CASE("every variant is right on every awkward shape, in every dtype") {
  for (const Variant& variant : stage_06_fp8_prefetch_v3.variants) {
    for (Problem p : shapes()) {
      for (const DType dtype : kTensorDTypes) {
        p.dtype = dtype;
        if (!refusal(variant, p, device()).empty()) continue;
        check_variant(variant, p, Distribution::normal);
      }
    }
  }
}
