// Which ceiling binds, and what it predicts, with ceilings made up to be easy to divide by.
#include "common/roofline.hpp"

#include <doctest/doctest.h>

namespace al {
namespace {

Ceilings made_up() {
  Ceilings c;
  c.copy_gbps = 4000;
  c.read_gbps = 4500;
  c.ffma_tflops = 50;
  c.tensor_tflops = 800;
  c.mma_tflops = 600;
  c.shared_gbps = 32000;
  c.exp_tops = 4;
  return c;
}

// S = QK^T of the published shape hdim64_seq4k, fp32, no mask.
Problem scores() {
  Problem p;
  p.operation = Operation::scores;
  p.batch = 4;
  p.heads = p.kv_heads = 32;
  p.seq = p.kv_seq = 4096;
  p.dtype = DType::fp32;
  p.causal = false;
  return p;
}

TEST_CASE("the slower of memory and arithmetic binds") {
  const Problem p = scores();
  const double flops = 2.0 * 4 * 32 * 4096 * 4096 * 64;
  const double bytes = 4.0 * (2.0 * 4 * 32 * 4096 * 64 + 4.0 * 32 * 4096 * 4096);

  const auto on_ffma = binding_limit(p, Units::ffma, made_up());
  REQUIRE(on_ffma);
  CHECK(on_ffma->name == "FFMA TFLOP/s");
  CHECK(on_ffma->value == 50);
  CHECK(on_ffma->ms == doctest::Approx(1e3 * flops / 50e12));

  const auto on_tensor = binding_limit(p, Units::tensor, made_up());
  REQUIRE(on_tensor);
  CHECK(on_tensor->name == "copy GB/s");
  CHECK(on_tensor->ms == doctest::Approx(1e3 * bytes / 4000e9));
}

TEST_CASE("a causal mask is less work") {
  Problem p = scores();
  const double full = binding_limit(p, Units::ffma, made_up())->ms;
  p.causal = true;
  CHECK(binding_limit(p, Units::ffma, made_up())->ms == doctest::Approx(full / 2).epsilon(0.001));
}

TEST_CASE("who writes next to nothing is held by reading") {
  Problem decode;
  decode.heads = decode.kv_heads = 16;
  decode.seq = 1;
  decode.kv_seq = 65536;
  const auto limit = binding_limit(decode, Units::tensor, made_up());
  REQUIRE(limit);
  CHECK(limit->name == "read GB/s");
  CHECK(limit->value == 4500);
}

TEST_CASE("no limit when a ceiling it might be is absent") {
  CHECK_FALSE(binding_limit(scores(), Units::ffma, Ceilings{}));
  Ceilings no_cublas = made_up();
  no_cublas.tensor_tflops.reset();
  CHECK_FALSE(binding_limit(scores(), Units::tensor, no_cublas));
  CHECK(binding_limit(scores(), Units::ffma, no_cublas));
}

TEST_CASE("the prediction is the slowest of the costs") {
  Cost cost;
  CHECK_FALSE(predict(cost, made_up()));  // nothing to do, nothing to predict
  cost.ffma_flops = 50e9;                 // 1 ms
  cost.dram_bytes = 8e9;                  // 2 ms
  CHECK(predict(cost, made_up())->name == "copy GB/s");
  CHECK(predict(cost, made_up())->ms == doctest::Approx(2));
  cost.shared_wavefronts = 1e9;  // 128e9 bytes: 4 ms
  CHECK(predict(cost, made_up())->name == "load/store GB/s");
  CHECK(predict(cost, made_up())->ms == doctest::Approx(4));
  cost.tensor_flops = 8000e9;  // 10 ms
  CHECK(predict(cost, made_up())->name == "tensor TFLOP/s");
  CHECK(predict(cost, made_up())->ms == doctest::Approx(10));
  cost.exponentials = 80e9;  // 20 ms
  CHECK(predict(cost, made_up())->name == "exp T/s");
  CHECK(predict(cost, made_up())->ms == doctest::Approx(20));
}

TEST_CASE("mma.sync has a ceiling of its own; what counts for the problem is the tensor cores'") {
  const Cost cost{.mma_flops = 6e12};
  CHECK(units_of(cost) == Units::tensor);
  CHECK(predict(cost, made_up())->name == "mma.sync TFLOP/s");
  CHECK(predict(cost, made_up())->ms == doctest::Approx(10));
}

TEST_CASE("8-bit operands have a ceiling of their own, or none") {
  const Cost fp8{.tensor_flops = 1, .tensor_fp8_flops = 16e12};
  CHECK(units_of(fp8) == Units::tensor_fp8);
  CHECK(units_of({.tensor_flops = 1}) == Units::tensor);
  CHECK(units_of({.ffma_flops = 1}) == Units::ffma);
  CHECK_FALSE(predict(fp8, made_up()));
  Problem p = scores();
  p.operation = Operation::attention;
  CHECK_FALSE(binding_limit(p, Units::tensor_fp8, made_up()));
  Ceilings hopper = made_up();
  hopper.tensor_fp8_tflops = 1600;
  CHECK(predict(fp8, hopper)->ms == doctest::Approx(10));
  CHECK(binding_limit(p, Units::tensor_fp8, hopper)->name == "FP8 tensor TFLOP/s");
  CHECK(binding_limit(p, Units::tensor_fp8, hopper)->value == 1600);
}

TEST_CASE("a prediction needs the ceilings of what the kernel does, and no others") {
  Ceilings ceilings;
  ceilings.ffma_tflops = 50;
  CHECK(predict({.ffma_flops = 1e9}, ceilings));
  CHECK_FALSE(predict({.ffma_flops = 1e9, .dram_bytes = 1}, ceilings));
}

}  // namespace
}  // namespace al
