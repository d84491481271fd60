// Chapter 04 on a GPU or in the emulator: the stage, tiles of every kind, and the two famous ways
// to get the recurrence wrong.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "04_fused_v1/fused.cuh"
#include "04_fused_v1/stage.hpp"
#include "common/buffer.hpp"
#include "common/tests/stage_checks.hpp"

using namespace al;
using namespace al::fused1;

namespace {

std::string supported(const Problem&, const DeviceInfo&) { return ""; }

// The kernel at one tile.
template <int D, int BLOCK_M, int BLOCK_N, int TM, int TN, typename Form = Recurrence>
constexpr Variant tile(const char* name) {
  return {.name = name,
          .idea = "",
          .prior = nullptr,
          .operation = Operation::attention,
          .refuse = supported,
          .workspace = nullptr,
          .cost = nullptr,
          .launch = launch_fused<D, BLOCK_M, BLOCK_N, TM, TN, Form>};
}

Problem small_problem() {
  Problem p;
  p.heads = p.kv_heads = 2;
  p.seq = 140;
  p.kv_seq = 200;
  return p;
}

}  // namespace

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
  for (Problem p : awkward_shapes(Operation::attention)) {
    for (const DType dtype : kAllDTypes) {
      for (const double sign : {1.0, -1.0}) {
        p.dtype = dtype;
        p.scale = sign * 10;
        check_variant(stage_04_fused_v1.variants[0], p, Distribution::outliers);
      }
    }
  }
}

// A mask that confuses rows, keys and tiles goes unseen while tiles are square or as large as the
// problem.
TEST_CASE("tiles wider than high and higher than wide, causal and full") {
  const Variant variants[] = {tile<64, 128, 32, 8, 4>("128x32"), tile<64, 32, 128, 4, 8>("32x128"),
                              tile<64, 16, 64, 4, 4>("16x64"), tile<64, 128, 64, 8, 8>("128x64")};
  for (const Variant& variant : variants) {
    for (Problem p : awkward_shapes(Operation::attention)) {
      p.head_dim = 64;
      check_variant(variant, p, Distribution::normal);
    }
  }
}

// The shapes above are too small for the large tiles to be chosen.
TEST_CASE("enough blocks to choose the large tiles, at every head dim") {
  for (const int head_dim : {16, 32, 64, 128, 256}) {
    Problem p = small_problem();
    p.heads = p.kv_heads = head_dim == 16 ? 528 : head_dim < 128 ? 264 : 132;
    p.seq = 3;
    p.kv_seq = 37;
    p.head_dim = head_dim;
    check_variant(stage_04_fused_v1.variants[0], p, Distribution::normal);
  }
}

// [snippet wrong_forms]
// O normalised in the loop, but what it held before is never scaled down to the new sum.
struct NoRescale : Recurrence {
  static __device__ float keep(float, float, float) { return 1; }
};

// Normalised in the loop, and once more at the end, as if it had not been.
struct DividedTwice : Recurrence {
  static __device__ float finish(float l) { return l > 0 ? 1 / l : 0.0f; }
};
// [/snippet]

TEST_CASE(
    "without the rescale, or divided twice, the check fails; over one tile only one of them does") {
  const Variant wrong[] = {tile<64, 32, 64, 4, 4, NoRescale>("no_rescale"),
                           tile<64, 32, 64, 4, 4, DividedTwice>("divided_twice")};
  for (const bool causal : {false, true}) {
    Problem p = small_problem();
    p.causal = causal;
    const HostInputs inputs = make_inputs(p, Distribution::normal, 7);
    Workbench bench(p, inputs, 0);
    CHECK(bench.check(tile<64, 32, 64, 4, 4>("right")).ok);
    for (const Variant& variant : wrong) {
      const ErrorReport error = bench.check(variant);
      CAPTURE(variant.name);
      CHECK(!error.ok);
      CHECK(error.scaled > 100 * error.budget);
    }
  }
  Problem p = small_problem();
  p.kv_seq = 64;  // one tile of keys: nothing to rescale, and a test at this size finds nothing
  p.causal = false;
  const HostInputs inputs = make_inputs(p, Distribution::normal, 7);
  Workbench bench(p, inputs, 0);
  CHECK(bench.check(wrong[0]).ok);
  CHECK(!bench.check(wrong[1]).ok);
}

// K and V are NaN at keys that early rows must not see. Rows that see those keys are NaN, all
// others must be untouched.
TEST_CASE("what a row does not see does not leak, not even as 0 * NaN") {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  Problem p;
  p.heads = p.kv_heads = 1;
  p.seq = 140;
  p.kv_seq = 163;
  const int first_nan = p.kv_seq - 13;  // rows that see fewer keys must not notice
  const std::vector<float> Q(p.q_elements(), 1.0f);
  for (const bool in_K : {false, true}) {
    std::vector<float> K(p.kv_elements(), 1.0f), V(p.kv_elements(), 1.0f);
    std::vector<float>& bad = in_K ? K : V;
    for (std::size_t x = std::size_t(first_nan) * p.head_dim; x < bad.size(); ++x) bad[x] = kNaN;
    for (const DType dtype : kAllDTypes) {
      p.dtype = dtype;
      const std::vector<std::byte> q = encode(dtype, Q), k = encode(dtype, K), v = encode(dtype, V);
      DeviceBuffer q_device(q.size(), "Q"), k_device(k.size(), "K"), v_device(v.size(), "V"),
          o_device(p.out_bytes(), "O");
      q_device.write(q.data(), q.size());
      k_device.write(k.data(), k.size());
      v_device.write(v.data(), v.size());
      std::vector<Variant> variants(stage_04_fused_v1.variants.begin(),
                                    stage_04_fused_v1.variants.end());
      variants.push_back(tile<64, 128, 64, 8, 8>("128x64"));
      for (const Variant& variant : variants) {
        INFO(std::string(variant.name) << " on " << to_string(p));
        o_device.poison();
        // No LSE is wanted here.
        variant.launch(p,
                       {.q = q_device.data(),
                        .k = k_device.data(),
                        .v = v_device.data(),
                        .out = o_device.data()},
                       nullptr);
        std::vector<std::byte> raw(p.out_bytes());
        o_device.read(raw.data(), raw.size());
        const std::vector<float> O = decode(dtype, raw.data(), p.out_elements());
        int wrong = 0;
        for (int i = 0; i < p.seq; ++i) {
          for (int d = 0; d < p.head_dim; ++d) {
            const float o = O[i * p.head_dim + d];
            wrong += p.visible_keys(i) > first_nan ? !std::isnan(o) : std::abs(o - 1) > 0.01f;
          }
        }
        CHECK(wrong == 0);
      }
    }
  }
}

TEST_CASE("no memory is needed besides the tensors") {
  for (const Variant& variant : stage_04_fused_v1.variants) CHECK(!variant.workspace);
}

TEST_CASE("what the stage does not do is refused by name") {
  Problem p;
  p.operation = Operation::scores;
  for (const Variant& variant : stage_04_fused_v1.variants) {
    CHECK(variant.refuse(p, device()).find("only") != std::string::npos);
  }
  p.operation = Operation::attention;
  DeviceInfo tiny = device();
  tiny.shared_per_block = 16 << 10;
  CHECK(stage_04_fused_v1.variants[0].refuse(p, tiny).find("shared memory") != std::string::npos);
}
