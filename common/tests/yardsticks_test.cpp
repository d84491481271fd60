// The libraries must be asked the right question: their results are checked as a stage's are.
#include "common/yardsticks/yardsticks.hpp"

#include <doctest/doctest.h>

#include <string>

#include "common/data.hpp"
#include "common/workbench.hpp"

namespace al {
namespace {

// Batches, groups, a scale of its own, and sizes that no tile divides.
Problem grouped(Operation operation, DType dtype) {
  Problem p;
  p.operation = operation;
  p.batch = 2;
  p.heads = 6;
  p.kv_heads = 2;
  p.seq = 37;
  p.kv_seq = 53;
  p.dtype = dtype;
  p.causal = false;
  p.scale = 0.3;
  return p;
}

TEST_CASE("yardsticks have names and refuse in words") {
  for (const Operation operation : {Operation::scores, Operation::pv}) {
    REQUIRE(yardsticks(operation).size() == 2);
    const Variant& fp32 = yardsticks(operation)[0];
    CHECK(std::string(fp32.name) == "cublas_fp32");
    CHECK(fp32.operation == operation);
    const std::string why = fp32.refuse(grouped(operation, DType::fp16), device());
    CHECK(why.find("--dtype fp32") != std::string::npos);
  }
  CHECK(yardsticks(Operation::softmax).empty());
  Problem causal = grouped(Operation::pv, DType::fp32);
  causal.causal = true;
  for (const Variant& variant : yardsticks(Operation::pv)) {
    CHECK(variant.refuse(causal, device()).find("--full") != std::string::npos);
  }
}

TEST_CASE("cuBLAS computes scale * Q K^T and P V, head by head") {
  for (const Operation operation : {Operation::scores, Operation::pv}) {
    for (const Variant& variant : yardsticks(operation)) {
      for (const DType dtype : {DType::fp32, DType::fp16, DType::bf16}) {
        const Problem p = grouped(operation, dtype);
        CAPTURE(variant.name);
        CAPTURE(to_string(p));
        if (const std::string why = variant.refuse(p, device()); !why.empty()) {
          MESSAGE("SKIP: " << why);
          continue;
        }
        Workbench bench(p, make_inputs(p, Distribution::normal, 1), variant.workspace(p));
        const ErrorReport error = bench.check(variant);
        if (std::string(variant.name) == "cublas_tensor" && dtype == DType::fp32) {
          CHECK(error.row_rel_l2 < 2e-3);  // TF32: ten bits of mantissa, outside the fp32 budget
        } else {
          CHECK_MESSAGE(error.ok, error.why);
        }
      }
    }
  }
}

}  // namespace
}  // namespace al
