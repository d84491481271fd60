// Chapter 05 on a GPU or in the emulator: the stage, tiles of every kind, every set of changes, and
// maxima that grow slowly, fast, and from far below.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "05_epilogue_norm_v2/fused.cuh"
#include "05_epilogue_norm_v2/stage.hpp"
#include "05_epilogue_norm_v2/steps.hpp"
#include "common/buffer.hpp"
#include "common/tests/stage_checks.hpp"

using namespace al;
using namespace al::fused2;

namespace {

std::string supported(const Problem&, const DeviceInfo&) { return ""; }

// The kernel at one tile.
template <int D, int BLOCK_M, int BLOCK_N, int TM, int TN, unsigned CHANGES = kAllChanges>
constexpr Variant tile(const char* name) {
  return {.name = name,
          .idea = "",
          .prior = nullptr,
          .operation = Operation::attention,
          .refuse = supported,
          .workspace = nullptr,
          .cost = nullptr,
          .launch = launch_fused<D, BLOCK_M, BLOCK_N, TM, TN, CHANGES>};
}

const Variant& fused() { return find_variant(stage_05_epilogue_norm_v2, "fused"); }

Problem small_problem() {
  Problem p;
  p.heads = p.kv_heads = 2;
  p.seq = 140;
  p.kv_seq = 200;
  return p;
}

}  // namespace

TEST_CASE("the stage is right on every awkward shape, in every dtype") {
  for (Problem p : awkward_shapes(Operation::attention)) {
    for (const DType dtype : kAllDTypes) {
      p.dtype = dtype;
      check_variant(fused(), p, Distribution::normal);
    }
  }
}

TEST_CASE("spikes of 20 sigma and logits in the thousands stay within budget") {
  for (Problem p : awkward_shapes(Operation::attention)) {
    for (const DType dtype : kAllDTypes) {
      for (const double sign : {1.0, -1.0}) {
        p.dtype = dtype;
        p.scale = sign * 10;
        check_variant(fused(), p, Distribution::outliers);
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
    check_variant(fused(), p, Distribution::normal);
  }
}

// Each of them is compiled anew: a rung is the kernel with other parts in it.
TEST_CASE("every rung is right, causal and full, ragged or not") {
  const Variant variants[] = {tile<64, 32, 64, 4, 4, kRung0>("chapter_04"),
                              tile<64, 32, 64, 4, 4, kRung1>("epilogue_norm"),
                              tile<64, 32, 64, 4, 4, kRung2>("exp2"),
                              tile<64, 32, 64, 4, 4, kRung3>("early_exit"),
                              tile<64, 32, 64, 4, 4, kRung4>("two_pass"),
                              tile<64, 32, 64, 4, 4, kRung5>("by_length"),
                              tile<64, 32, 64, 4, 4, kRung6>("padded_p"),
                              tile<64, 32, 64, 4, 4, kRung7>("prefetch"),
                              tile<64, 32, 64, 4, 4, kAllChanges & ~kEpilogueNorm>("divide")};
  for (const Variant& variant : variants) {
    for (Problem p : awkward_shapes(Operation::attention)) {
      p.head_dim = 64;
      check_variant(variant, p, Distribution::normal);
    }
    Problem p = small_problem();
    p.scale = 10;
    check_variant(variant, p, Distribution::outliers);
  }
}

// Q is one and K makes every score of key j what `score(j)` says: the maximum goes where it is
// told.
void check_scores(float (*score)(int j), const char* what) {
  Problem p;
  p.heads = p.kv_heads = 1;
  p.seq = 70;
  p.kv_seq = 300;
  p.scale = 1;
  HostInputs inputs = make_inputs(p, Distribution::normal, 7);
  std::fill(inputs.q.begin(), inputs.q.end(), 1.0f / p.head_dim);
  for (int j = 0; j < p.kv_seq; ++j) {
    for (int d = 0; d < p.head_dim; ++d) inputs.k[j * p.head_dim + d] = score(j);
  }
  for (const bool causal : {false, true}) {
    p.causal = causal;
    Workbench bench(p, inputs, 0);
    for (const Variant& variant :
         {tile<64, 32, 64, 4, 4>("32x64"), tile<64, 128, 32, 8, 4>("128x32"),
          tile<64, 32, 64, 4, 4, kAllChanges & ~kEpilogueNorm>("divide")}) {
      INFO(std::string(variant.name) << ", " << std::string(what) << ", " << to_string(p));
      const ErrorReport error = bench.check(variant);
      CHECK_MESSAGE(error.ok, error.why);
    }
  }
}

// skip_rescale leaves the maximum behind by up to 8 (in powers of 2). It may not stay behind for
// good, and the first tile's maximum must count however low it is.
TEST_CASE("maxima that stay, creep, jump, and start far below") {
  check_scores([](int) { return 3.0f; }, "constant");
  check_scores([](int j) { return j / 64.0f; }, "creeping: 5 in all, less than the threshold");
  check_scores([](int j) { return 0.25f * j; },
               "growing by more than the threshold in a few tiles");
  check_scores([](int j) { return 2.0f * j; }, "growing by more than the threshold in each tile");
  check_scores([](int j) { return -2.0f * j; }, "falling");
  check_scores([](int j) { return j < 290 ? -500.0f : 500.0f; }, "far below, then far above");
  check_scores([](int) { return -500.0f; }, "all far below zero");
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
      const Variant variants[] = {fused(), tile<64, 128, 64, 8, 8>("128x64"),
                                  tile<64, 32, 64, 4, 4, kRung0>("chapter_04")};
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
  for (const Variant& variant : stage_05_epilogue_norm_v2.variants) CHECK(!variant.workspace);
}

TEST_CASE("what the stage does not do is refused by name") {
  Problem p;
  p.operation = Operation::scores;
  for (const Variant& variant : stage_05_epilogue_norm_v2.variants) {
    CHECK(variant.refuse(p, device()).find("only") != std::string::npos);
  }
  p.operation = Operation::attention;
  DeviceInfo tiny = device();
  tiny.shared_per_block = 16 << 10;
  CHECK(fused().refuse(p, tiny).find("shared memory") != std::string::npos);
  const Variant& rung = find_variant(stage_05_epilogue_norm_v2, "exp2");
  CHECK(rung.refuse(p, device()).find("small ones") != std::string::npos);
  p.head_dim = 32;
  CHECK(rung.refuse(p, device()).find("head dims 64 and 128") != std::string::npos);
}

// Compiled apart from those above, for large tiles; the stage itself refuses a problem this small.
TEST_CASE("the rungs of the table are right") {
  for (const int head_dim : {64, 128}) {
    Problem p = small_problem();
    p.head_dim = head_dim;
    Workbench bench(p, make_inputs(p, Distribution::normal, 7), 0);
    for (const Variant& variant : stage_05_epilogue_norm_v2.variants) {
      INFO(std::string(variant.name) << " on " << to_string(p));
      const ErrorReport error = bench.check(variant);
      CHECK_MESSAGE(error.ok, error.why);
    }
  }
}
