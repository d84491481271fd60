// Chapter 03 on a GPU or in the emulator: every rung and the pipeline against the float64 oracle.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "03_pv/library_pieces.cuh"
#include "03_pv/pv.cuh"
#include "03_pv/stage.hpp"
#include "common/buffer.hpp"
#include "common/tests/stage_checks.hpp"

using namespace al;
using namespace al::pv;

namespace {

std::string supported(const Problem&, const DeviceInfo&) { return ""; }

// The register-tile kernel at one tile.
template <int BLOCK_M, int BLOCK_N, int BLOCK_K, int TM, int TN>
constexpr Variant tile(const char* name) {
  return {.name = name,
          .idea = "",
          .prior = nullptr,
          .operation = Operation::pv,
          .refuse = supported,
          .workspace = nullptr,
          .cost = nullptr,
          .launch = launch_pv_register_tiles<BLOCK_M, BLOCK_N, BLOCK_K, TM, TN>};
}

}  // namespace

TEST_CASE("every variant is right on every awkward shape, in every dtype") {
  for (const Variant& variant : stage_03_pv.variants) {
    for (Problem p : awkward_shapes(variant.operation)) {
      for (const DType dtype : kAllDTypes) {
        p.dtype = dtype;
        check_variant(variant, p, Distribution::normal);
      }
    }
  }
}

TEST_CASE("spikes of 20 sigma and logits in the thousands stay within budget") {
  for (const Variant& variant : stage_03_pv.variants) {
    for (Problem p : awkward_shapes(variant.operation)) {
      p.scale = 10;
      check_variant(variant, p, Distribution::outliers);
    }
  }
}

// A mask or an index that confuses rows, columns and keys goes unseen while tiles are square; and
// the shapes above are too small for the large tiles to be chosen.
TEST_CASE("large tiles, and tiles that are not square, causal and full") {
  const Variant variants[] = {tile<128, 64, 16, 8, 8>("128x64x16"),
                              tile<64, 128, 16, 8, 8>("64x128x16"),
                              tile<64, 64, 32, 8, 4>("64x64x32")};
  for (const Variant& variant : variants) {
    for (Problem p : awkward_shapes(Operation::pv)) {
      if (p.head_dim % 128 != 0) p.head_dim = 128;
      for (const DType dtype : {DType::fp32, DType::fp16}) {
        p.dtype = dtype;
        check_variant(variant, p, Distribution::normal);
      }
    }
  }
}

TEST_CASE("enough tiles to choose the large ones") {
  for (const int head_dim : {64, 128}) {
    Problem p;
    p.operation = Operation::pv;
    p.heads = p.kv_heads = 8;
    p.seq = 128 * 8;
    p.kv_seq = 132;
    p.head_dim = head_dim;
    p.causal = false;
    if (device().backend == "cuda") p.batch = 9;  // the emulator has fewer SMs to fill
    check_variant(find_variant(stage_03_pv, "register_tiles"), p, Distribution::normal);
  }
}

// P's masked entries are NaN here as in the workspace, where no one wrote them; so is V at keys
// that early rows must not see. Rows that see those keys are NaN, all others must be untouched.
TEST_CASE("what a row does not see does not leak, not even as 0 * NaN") {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  Problem p;
  p.operation = Operation::pv;
  p.heads = p.kv_heads = 1;
  p.causal = true;
  for (const int kv_seq : {160, 163}) {  // rows of P that begin at multiples of 16 bytes, and not
    p.seq = 140;
    p.kv_seq = kv_seq;
    const int first_nan = kv_seq - 13;  // rows that see fewer keys must not notice
    std::vector<float> P(p.score_elements(), kNaN), V(p.kv_elements(), 1.0f);
    for (int i = 0; i < p.seq; ++i) {
      for (int j = 0; j < p.visible_keys(i); ++j) P[i * kv_seq + j] = 1.0f;
    }
    for (std::size_t x = std::size_t(first_nan) * p.head_dim; x < V.size(); ++x) V[x] = kNaN;

    for (const DType dtype : kAllDTypes) {
      p.dtype = dtype;
      const std::vector<std::byte> P_bytes = encode(dtype, P), V_bytes = encode(dtype, V);
      DeviceBuffer P_device(P_bytes.size(), "P"), V_device(V_bytes.size(), "V"),
          O_device(p.out_bytes(), "O");
      P_device.write(P_bytes.data(), P_bytes.size());
      V_device.write(V_bytes.data(), V_bytes.size());
      std::vector<Variant> variants = {tile<128, 64, 16, 8, 8>("128x64x16"),
                                       tile<64, 64, 32, 8, 4>("64x64x32")};
      for (const Variant& v : stage_03_pv.variants) {
        if (v.operation == Operation::pv) variants.push_back(v);
      }
      for (const Variant& variant : variants) {
        INFO(std::string(variant.name) << " on " << to_string(p));
        O_device.poison();
        variant.launch(p, {.v = V_device.data(), .p = P_device.data(), .out = O_device.data()},
                       nullptr);
        std::vector<std::byte> raw(p.out_bytes());
        O_device.read(raw.data(), raw.size());
        const std::vector<float> O = decode(dtype, raw.data(), p.out_elements());
        int wrong = 0;
        for (int i = 0; i < p.seq; ++i) {
          const int visible = p.visible_keys(i);
          for (int d = 0; d < p.head_dim; ++d) {
            const float o = O[i * p.head_dim + d];
            wrong += visible > first_nan ? !std::isnan(o) : o != float(visible);
          }
        }
        CHECK(wrong == 0);
      }
    }
  }
}

TEST_CASE("zero_masked makes zero of what the mask hides, and touches nothing else") {
  Problem p;
  p.operation = Operation::softmax;
  p.heads = p.kv_heads = 2;
  p.seq = 70;
  p.kv_seq = 53;
  p.dtype = DType::fp32;
  const std::vector<float> ones(p.score_elements(), 1.0f);
  DeviceBuffer P(ones.size() * sizeof(float), "P");
  P.write(ones.data(), ones.size() * sizeof(float));
  launch_zero_masked(p, P.data(), nullptr);
  std::vector<float> got(ones.size());
  P.read(got.data(), got.size() * sizeof(float));
  int wrong = 0;
  for (std::int64_t row = 0; row < p.q_rows(); ++row) {
    for (int j = 0; j < p.kv_seq; ++j) {
      const bool visible = j < p.visible_keys(static_cast<int>(row % p.seq));
      wrong += got[row * p.kv_seq + j] != (visible ? 1.0f : 0.0f);
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("the workspace holds S in fp32 and P") {
  Problem p;
  p.heads = p.kv_heads = 3;
  p.seq = 100;
  p.kv_seq = 77;
  p.dtype = DType::fp16;
  const std::size_t entries = p.score_elements();
  const std::size_t bytes = find_variant(stage_03_pv, "pipeline").workspace(p);
  CHECK(bytes >= entries * 6);
  CHECK(bytes < entries * 6 + 1024);
}

TEST_CASE("what the stage does not do is refused by name") {
  Problem p;
  p.operation = Operation::scores;
  for (const Variant& variant : stage_03_pv.variants) {
    CHECK(variant.refuse(p, device()).find("only") != std::string::npos);
  }
}

// cuBLAS is there on a machine with a GPU and a toolkit; its zeros for masked P are ours.
TEST_CASE("the library's pieces make attention, causal and full") {
  for (const Variant& variant : stage_03_pv.yardsticks) {
    for (Problem p : awkward_shapes(Operation::attention)) {
      for (const DType dtype : kAllDTypes) {
        p.dtype = dtype;
        if (const std::string why = variant.refuse(p, device()); !why.empty()) {
          MESSAGE("SKIP: " << why);
          continue;
        }
        check_variant(variant, p, Distribution::normal);
      }
    }
  }
}
