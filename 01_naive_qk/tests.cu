// Chapter 01 on a GPU or in the emulator: every rung against the float64 oracle.
#include <cmath>

#include "01_naive_qk/qk.cuh"
#include "01_naive_qk/stage.hpp"
#include "common/tests/stage_checks.hpp"

using namespace al;
using namespace al::qk;

TEST_CASE("every rung is right on every awkward shape, in every dtype") {
  for (Problem p : awkward_shapes(Operation::scores)) {
    for (const DType dtype : kAllDTypes) {
      p.dtype = dtype;
      for (const Variant& variant : stage_01_naive_qk.variants) {
        check_variant(variant, p, Distribution::normal);
      }
    }
  }
}

TEST_CASE("spikes of 20 sigma and logits in the thousands stay within budget") {
  for (Problem p : awkward_shapes(Operation::scores)) {
    p.scale = 10;
    for (const Variant& variant : stage_01_naive_qk.variants) {
      check_variant(variant, p, Distribution::outliers);
    }
  }
}

// A mask or an index that confuses rows with columns goes unseen while tiles are square.
TEST_CASE("tiles that are not square, causal and full") {
  const auto supported = [](const Problem&, const DeviceInfo&) { return std::string(); };
  const Variant wide{.name = "32x128",
                     .idea = "",
                     .prior = nullptr,
                     .operation = Operation::scores,
                     .refuse = supported,
                     .workspace = nullptr,
                     .cost = nullptr,
                     .launch = launch_register_tiles<32, 128, 16, 4, 8>};
  const Variant tall{.name = "128x32",
                     .idea = "",
                     .prior = nullptr,
                     .operation = Operation::scores,
                     .refuse = supported,
                     .workspace = nullptr,
                     .cost = nullptr,
                     .launch = launch_register_tiles<128, 32, 16, 8, 4>};
  for (const Problem& p : awkward_shapes(Operation::scores)) {
    check_variant(wide, p, Distribution::normal);
    check_variant(tall, p, Distribution::normal);
  }
}

TEST_CASE("enough tiles to choose the large one") {
  Problem p;
  p.operation = Operation::scores;
  p.batch = 3;
  p.heads = p.kv_heads = 32;
  p.seq = p.kv_seq = 257;
  p.head_dim = 32;
  p.causal = false;
  check_variant(stage_01_naive_qk.variants[3], p, Distribution::normal);
}

TEST_CASE("what the stage does not do is refused by name") {
  Problem p;
  p.operation = Operation::attention;
  for (const Variant& variant : stage_01_naive_qk.variants) {
    CHECK(variant.refuse(p, device()) == "it computes scores only");
  }
  p.operation = Operation::scores;
  p.seq = p.kv_seq = 1 << 27;
  CHECK(stage_01_naive_qk.variants[3].refuse(p, device()).find("2^31 - 1") != std::string::npos);
}
