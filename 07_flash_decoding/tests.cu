// Chapter 07 on a GPU or in the emulator.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "07_flash_decoding/split.cuh"
#include "07_flash_decoding/stage.hpp"
#include "07_flash_decoding/tensor.cuh"
#include "common/buffer.hpp"
#include "common/tests/stage_checks.hpp"

using namespace al;
using namespace al::decoding;

namespace {

// Small, and each there for a reason; every one with rows of Q that share K and V or not.
std::vector<Problem> decoding_shapes() {
  struct Shape {
    int batch, heads, kv_heads, seq, kv_seq, head_dim;
    bool causal;
  };
  const std::vector<Shape> shapes = {
      {1, 1, 1, 1, 1, 64, false},      // one score
      {2, 2, 2, 1, 300, 64, false},    // ragged; more chunks than one
      {1, 4, 1, 1, 1000, 128, false},  // rows that share
      {1, 2, 2, 1, 513, 256, false},   // one key past a tile edge
      {1, 3, 1, 5, 777, 64, true},     // queries and heads: 15 rows, two tiles of 8
      {2, 2, 1, 16, 130, 128, true},   // the most queries
      {1, 1, 1, 9, 5, 64, true},       // rows that see no key
      {1, 16, 2, 3, 90, 64, false},    // 24 rows
  };
  std::vector<Problem> problems;
  for (const Shape& s : shapes) {
    Problem p;
    p.batch = s.batch, p.heads = s.heads, p.kv_heads = s.kv_heads;
    p.seq = s.seq, p.kv_seq = s.kv_seq, p.head_dim = s.head_dim;
    p.causal = s.causal;
    p.scale = 1 / std::sqrt(double(s.head_dim));
    problems.push_back(p);
  }
  return problems;
}

// Checks it wherever the variant takes it.
void check_if_supported(const Variant& variant, const Problem& p,
                        Distribution data = Distribution::normal) {
  if (refusal(variant, p, device()).empty()) check_variant(variant, p, data);
}

}  // namespace

TEST_CASE("every variant is right on every shape, in every dtype") {
  for (const Variant& variant : stage_07_flash_decoding.variants) {
    for (Problem p : decoding_shapes()) {
      for (const DType dtype : kAllDTypes) {
        p.dtype = dtype;
        check_if_supported(variant, p);
      }
    }
  }
}

TEST_CASE("spikes of 20 sigma and logits in the thousands stay within budget") {
  for (const Variant& variant : stage_07_flash_decoding.variants) {
    for (Problem p : decoding_shapes()) {
      p.scale = 10;
      check_if_supported(variant, p, Distribution::outliers);
    }
  }
}

TEST_CASE("a cache of 8 bits, lengths and pages, alone and together") {
  for (const Variant& variant : stage_07_flash_decoding.variants) {
    for (Problem p : decoding_shapes()) {
      for (const int what : {1, 2, 4, 7}) {
        p.kv_dtype.reset();
        p.kv_len.clear();
        p.page_size = 0;
        if (what & 1) p.kv_dtype = DType::e4m3;
        if (what & 2) {
          p.kv_len.assign(p.batch, p.kv_seq * 2 / 3);
          p.kv_len[0] = p.batch > 1 ? 0 : p.kv_seq / 2;
        }
        if (what & 4) p.page_size = p.head_dim == 64 ? 16 : 64;
        check_if_supported(variant, p);
      }
    }
  }
}
