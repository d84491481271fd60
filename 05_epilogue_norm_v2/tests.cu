// chapter 05 on a GPU or in the emulator.
#include <string>

#include "05_epilogue_norm_v2/fused.cuh"
#include "05_epilogue_norm_v2/stage.hpp"
#include "common/tests/stage_checks.hpp"

using namespace al;
using namespace al::fused2;

TEST_CASE("every variant is right on every awkward shape, in every dtype") {
  for (const Variant& variant : stage_05_epilogue_norm_v2.variants) {
    for (Problem p : awkward_shapes(variant.operation)) {
      for (const DType dtype : kAllDTypes) {
        p.dtype = dtype;
        check_variant(variant, p, Distribution::normal);
      }
    }
  }
}

TEST_CASE("spikes of 20 sigma and logits in the thousands stay within budget") {
  for (const Variant& variant : stage_05_epilogue_norm_v2.variants) {
    for (Problem p : awkward_shapes(variant.operation)) {
      p.scale = 10;
      check_variant(variant, p, Distribution::outliers);
    }
  }
}
