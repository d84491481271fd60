// The libraries must be asked the right question: their results are checked as a stage's are.
#include "common/yardsticks/yardsticks.hpp"

#include <doctest/doctest.h>

#include <string>
#include <utility>

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
  REQUIRE(yardsticks(Operation::attention).size() == 1);
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

TEST_CASE("cuDNN refuses in words what it cannot do") {
  const Variant& cudnn = yardsticks(Operation::attention)[0];
  CHECK(std::string(cudnn.name) == "cudnn");
  const auto why = [&](const Problem& p) { return cudnn.refuse(p, device()); };
  Problem p = grouped(Operation::attention, DType::fp32);
  if (device().sm < 80 || why(p).find("headers") != std::string::npos) return;
  CHECK(why(p).find("--dtype fp16") != std::string::npos);
  p.dtype = DType::fp16;
  p.causal = true;
  std::swap(p.seq, p.kv_seq);
  CHECK(why(p).find("as many keys as queries") != std::string::npos);
}

// Checks cuDNN's answer, or says what it declines.
void check_cudnn(const Problem& p) {
  const Variant& cudnn = yardsticks(Operation::attention)[0];
  CAPTURE(to_string(p));
  if (const std::string why = refusal(cudnn, p, device()); !why.empty()) {
    MESSAGE("SKIP: " << to_string(p) << ": " << why);
    return;
  }
  Workbench bench(p, make_inputs(p, Distribution::normal, 1), cudnn.workspace(p));
  const ErrorReport error = bench.check(cudnn);
  CHECK_MESSAGE(error.ok, error.why);
}

struct Shape {
  int batch, heads, kv_heads, seq, kv_seq, head_dim;
  bool causal;
};

Problem problem_of(const Shape& shape, DType dtype) {
  Problem p;
  p.batch = shape.batch, p.heads = shape.heads, p.kv_heads = shape.kv_heads;
  p.seq = shape.seq, p.kv_seq = shape.kv_seq, p.head_dim = shape.head_dim;
  p.causal = shape.causal;
  p.dtype = dtype;
  p.scale = 0.3;
  return p;
}

TEST_CASE("cuDNN computes attention: masks, groups, lengths that no tile divides, LSE") {
  const Shape shapes[] = {{2, 6, 2, 37, 53, 64, false},   {2, 6, 2, 37, 53, 64, true},
                          {1, 2, 2, 200, 200, 128, true}, {1, 4, 1, 130, 257, 128, true},
                          {1, 2, 1, 129, 300, 256, true}, {1, 2, 2, 300, 129, 256, false},
                          {2, 8, 2, 1, 1000, 64, true},   {2, 8, 2, 1, 1000, 128, false},
                          {1, 8, 2, 16, 1000, 128, true}, {1, 8, 8, 7, 4096, 64, true}};
  for (const Shape& shape : shapes) {
    for (const DType dtype : {DType::fp16, DType::bf16}) check_cudnn(problem_of(shape, dtype));
  }
}

TEST_CASE("cuDNN with a length for each sequence, and with pages") {
  const Shape shapes[] = {
      {3, 8, 2, 1, 1000, 64, false}, {3, 8, 2, 1, 1000, 128, true}, {3, 4, 4, 8, 1000, 128, false}};
  for (const Shape& shape : shapes) {
    for (const int page_size : {0, 16, 64}) {
      Problem p = problem_of(shape, DType::fp16);
      p.page_size = page_size;
      p.kv_len = {shape.kv_seq, 131, 257};
      check_cudnn(p);
      p.kv_len = {};
      check_cudnn(p);
    }
  }
}

}  // namespace
}  // namespace al
