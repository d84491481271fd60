// What every chapter's tests share: the list of shapes that find a kernel's mistakes, and the check
// of one variant on one of them. The same on a GPU and in the emulator.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "common/data.hpp"
#include "common/stage.hpp"
#include "common/workbench.hpp"

namespace al {

// Small, and each there for a reason. Both masks, no dtype yet.
inline std::vector<Problem> awkward_shapes(Operation operation) {
  struct Shape {
    int batch, heads, kv_heads, seq, kv_seq, head_dim;
  };
  const std::vector<Shape> shapes = {
      {1, 1, 1, 1, 1, 64},      // one score
      {1, 2, 1, 1, 131, 32},    // one query, ragged keys: decoding
      {1, 1, 1, 131, 1, 32},    // one key
      {1, 1, 1, 128, 128, 64},  // exactly one large tile
      {2, 4, 2, 65, 129, 64},   // one past a tile edge both ways; batch and GQA
      {1, 6, 2, 63, 127, 16},   // one short of a tile edge; smallest D
      {1, 3, 1, 130, 70, 64},   // more queries than keys: causal rows that see no key; MQA
      {1, 1, 1, 40, 300, 128},  // several chunks of D, keys well past the queries
      {1, 1, 1, 96, 33, 256},   // largest D
  };
  std::vector<Problem> problems;
  for (const Shape& s : shapes) {
    for (const bool causal : {false, true}) {
      Problem p;
      p.operation = operation;
      p.batch = s.batch;
      p.heads = s.heads;
      p.kv_heads = s.kv_heads;
      p.seq = s.seq;
      p.kv_seq = s.kv_seq;
      p.head_dim = s.head_dim;
      p.causal = causal;
      p.scale = 1 / std::sqrt(double(s.head_dim));
      problems.push_back(p);
    }
  }
  return problems;
}

// Runs the variant on poisoned outputs and asserts that every element is right.
inline void check_variant(const Variant& variant, const Problem& p, Distribution data,
                          std::uint64_t seed = 7) {
  INFO(std::string(variant.name) << " on " << to_string(p));
  REQUIRE(refusal(variant, p, device()) == "");
  const HostInputs inputs = make_inputs(p, data, seed);
  Workbench bench(p, inputs, variant.workspace ? variant.workspace(p) : 0);
  const ErrorReport error = bench.check(variant);
  CHECK_MESSAGE(error.ok, error.why);
}

inline constexpr DType kAllDTypes[] = {DType::fp32, DType::fp16, DType::bf16};

}  // namespace al
