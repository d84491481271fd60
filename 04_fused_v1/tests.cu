// Chapter 04 on a GPU or in the emulator.
#include <string>

#include "04_fused_v1/fused.cuh"
#include "04_fused_v1/stage.hpp"
#include "common/tests/stage_checks.hpp"

using namespace al;
using namespace al::fused1;

TEST_CASE("every variant is right on every awkward shape, in every dtype") {
  for (const Variant& variant : stage_04_fused_v1.variants) {
    for (Problem p : awkward_shapes(variant.operation)) {
      for (const DType dtype : kAllDTypes) {
        p.dtype = dtype;
        check_variant(variant, p, Distribution::normal);
      }
    }
  }
}

TEST_CASE("spikes of 20 sigma and logits in the thousands stay within budget") {
  for (const Variant& variant : stage_04_fused_v1.variants) {
    for (Problem p : awkward_shapes(variant.operation)) {
      p.scale = 10;
      check_variant(variant, p, Distribution::outliers);
    }
  }
}
