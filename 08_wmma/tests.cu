// Chapter 08 on a GPU or in the emulator: every step against the float64 oracle.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "08_wmma/stage.hpp"
#include "08_wmma/wmma_v3.cuh"
#include "08_wmma/wmma_v4.cuh"
#include "common/buffer.hpp"
#include "common/tests/stage_checks.hpp"

using namespace al;
using namespace al::wmma;

namespace {

// While one of these lives, the emulator deals the elements of fragments out as a GPU does.
struct GpuFragments {
#ifdef AL_EMULATOR
  GpuFragments() { emulator::settings().gpu_fragments = true; }
  ~GpuFragments() { emulator::settings().gpu_fragments = false; }
#else
  ~GpuFragments() {}
#endif
};

std::string supported(const Problem&, const DeviceInfo&) { return ""; }

using Launch = void (*)(const Problem&, const Arguments&, Stream);

constexpr Variant tile(const char* name, Launch launch) {
  return {.name = name,
          .idea = "",
          .prior = nullptr,
          .operation = Operation::attention,
          .refuse = supported,
          .workspace = nullptr,
          .cost = nullptr,
          .launch = launch};
}

// The awkward shapes, with the head dims that the variants take: those of all chapters' shapes that
// they do not take become 64.
std::vector<Problem> shapes() {
  std::vector<Problem> problems = awkward_shapes(Operation::attention);
  for (Problem& p : problems) {
    if (p.head_dim == 16 || p.head_dim == 256) p.head_dim = 64;
    p.dtype = DType::fp16;
  }
  return problems;
}

// Calls check(variant, problem) for all that the stage can do.
template <typename Check>
void for_all(Check check) {
  const GpuFragments as_on_a_gpu;
  for (const Variant& variant : stage_08_wmma.variants) {
    for (Problem p : shapes()) {
      for (const DType dtype : {DType::fp16, DType::bf16}) {
        p.dtype = dtype;
        if (refusal(variant, p, device()) == "") check(variant, p);
      }
    }
  }
}

}  // namespace

TEST_CASE("every variant is right on every awkward shape it takes") {
  int checks = 0;
  for_all([&](const Variant& variant, const Problem& p) {
    check_variant(variant, p, Distribution::normal);
    ++checks;
  });
  // Seven steps on 14 shapes of fp16, two variants on 18 in both dtypes; on a small GPU fewer.
  if (device().shared_per_block > 128 * 1024) CHECK(checks == 7 * 14 + 2 * 18 * 2);
}

TEST_CASE("spikes of 20 sigma and logits in the thousands stay within budget") {
  for_all([](const Variant& variant, Problem p) {
    p.scale = 10;
    check_variant(variant, p, Distribution::outliers);
  });
}

TEST_CASE("a scale that is negative, or zero") {
  const GpuFragments as_on_a_gpu;
  for (const Variant& variant : stage_08_wmma.variants) {
    for (const double scale : {-0.2, 0.0}) {
      for (Problem p : shapes()) {
        p.scale = scale;
        if (p.kv_seq != 129) continue;
        check_variant(variant, p, Distribution::normal);
      }
    }
  }
}

// So few blocks take 16 queries a warp here, and the tiles for large problems, and those for GPUs
// with little shared memory, would go untested.
TEST_CASE("the tiles of large problems and of small GPUs") {
  const GpuFragments as_on_a_gpu;
  const Variant d64[] = {tile("v3, D 64, large", launch_v3<__half, 64, 4, 32, 64, 3, true, 16>),
                         tile("v4, D 64, large", launch_v4<__half, 64, 4, 32, 64, 3>),
                         tile("v3, D 64, small", launch_v3<__half, 64, 4, 16, 32, 3, true, 16>)},
                d128[] = {tile("v3, D 128, large", launch_v3<__half, 128, 4, 32, 64, 2, true, 16>),
                          tile("v4, D 128, large", launch_v4<__half, 128, 4, 32, 64, 2>),
                          tile("v3, D 128, small", launch_v3<__half, 128, 4, 16, 32, 2, true, 16>),
                          tile("v4, D 128, small", launch_v4<__half, 128, 2, 32, 32, 2>)};
  for (Problem p : shapes()) {
    p.head_dim = 64;
    for (const Variant& variant : d64) check_variant(variant, p, Distribution::normal);
    p.head_dim = 128;
    for (const Variant& variant : d128) check_variant(variant, p, Distribution::normal);
  }
}

// Blocks are dealt to heads 16 at a time; the last time there are fewer.
TEST_CASE("more heads than go together") {
  const GpuFragments as_on_a_gpu;
  Problem p;
  p.heads = 18;
  p.kv_heads = 6;
  p.seq = 260;
  p.kv_seq = 40;
  p.head_dim = 32;
  for (const char* name : {"longest_first", "asked_layout"}) {
    check_variant(find_variant(stage_08_wmma, name), p, Distribution::normal);
  }
}

// V is NaN or infinite at keys that early rows must not see. Rows that see those keys are not
// finite, all others must be untouched, LSE too.
TEST_CASE("what a row does not see does not leak, not even as 0 * NaN") {
  const GpuFragments as_on_a_gpu;
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  Problem p;
  p.heads = p.kv_heads = 1;
  p.seq = 140;
  p.kv_seq = 163;
  const int first_bad = 150;  // rows that see fewer keys must not notice
  const std::vector<float> ones(p.q_elements(), 1.0f);
  for (const float bad : {kNaN, std::numeric_limits<float>::infinity()}) {
    std::vector<float> K(p.kv_elements(), 0.0f), V(p.kv_elements(), 1.0f);
    for (std::size_t x = std::size_t(first_bad) * p.head_dim; x < V.size(); ++x) V[x] = bad;
    for (std::size_t x = std::size_t(first_bad) * p.head_dim; x < K.size(); ++x) K[x] = kNaN;
    for (const DType dtype : {DType::fp16, DType::bf16}) {
      p.dtype = dtype;
      const auto on_device = [&](const std::vector<float>& values, const char* name) {
        const std::vector<std::byte> bytes = encode(dtype, values);
        DeviceBuffer buffer(bytes.size(), name);
        buffer.write(bytes.data(), bytes.size());
        return buffer;
      };
      const DeviceBuffer Q_device = on_device(ones, "Q"), K_device = on_device(K, "K"),
                         V_device = on_device(V, "V");
      DeviceBuffer O_device(p.out_bytes(), "O"), LSE_device(p.q_rows() * sizeof(float), "LSE");
      for (const Variant& variant : stage_08_wmma.variants) {
        if (refusal(variant, p, device()) != "") continue;
        INFO(std::string(variant.name) << " on " << to_string(p));
        O_device.poison();
        LSE_device.poison();
        variant.launch(p,
                       {.q = Q_device.data(),
                        .k = K_device.data(),
                        .v = V_device.data(),
                        .out = O_device.data(),
                        .lse = static_cast<float*>(LSE_device.data())},
                       nullptr);
        std::vector<std::byte> raw(p.out_bytes());
        O_device.read(raw.data(), raw.size());
        const std::vector<float> O = decode(dtype, raw.data(), p.out_elements());
        std::vector<float> LSE(p.q_rows());
        LSE_device.read(LSE.data(), LSE.size() * sizeof(float));
        int wrong = 0;
        for (int i = 0; i < p.seq; ++i) {
          const int visible = p.visible_keys(i);
          if (visible > first_bad) continue;  // the keys are NaN there: so is everything
          wrong += !(std::fabs(LSE[i] - std::log(float(visible))) < 1e-5f);
          for (int d = 0; d < p.head_dim; ++d) wrong += O[i * p.head_dim + d] != 1.0f;
        }
        CHECK(wrong == 0);
      }
    }
  }
}

// Rows that do see an infinite value must say so: it is not enough to leave it out.
TEST_CASE("an infinite V is infinite for those who see it") {
  const GpuFragments as_on_a_gpu;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  Problem p;
  p.heads = p.kv_heads = 1;
  p.seq = p.kv_seq = 100;
  p.dtype = DType::fp16;
  std::vector<float> Q(p.q_elements(), 0.0f), V(p.kv_elements(), 1.0f);
  V[90 * p.head_dim + 7] = kInfinity;
  const std::vector<std::byte> Q_bytes = encode(p.dtype, Q), V_bytes = encode(p.dtype, V);
  DeviceBuffer Q_device(Q_bytes.size(), "Q"), V_device(V_bytes.size(), "V"),
      O_device(p.out_bytes(), "O");
  Q_device.write(Q_bytes.data(), Q_bytes.size());
  V_device.write(V_bytes.data(), V_bytes.size());
  for (const Variant& variant : stage_08_wmma.variants) {
    INFO(std::string(variant.name));
    O_device.poison();
    variant.launch(
        p,
        {.q = Q_device.data(), .k = Q_device.data(), .v = V_device.data(), .out = O_device.data()},
        nullptr);
    std::vector<std::byte> raw(p.out_bytes());
    O_device.read(raw.data(), raw.size());
    const std::vector<float> O = decode(p.dtype, raw.data(), p.out_elements());
    int wrong = 0;
    for (int i = 0; i < p.seq; ++i) {
      for (int d = 0; d < p.head_dim; ++d) {
        wrong += O[i * p.head_dim + d] != (i >= 90 && d == 7 ? kInfinity : 1.0f);
      }
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("five runs give the same bits") {
  const GpuFragments as_on_a_gpu;
  Problem p;
  p.heads = p.kv_heads = 2;
  p.seq = p.kv_seq = 200;
  for (const Variant& variant : stage_08_wmma.variants) {
    Workbench bench(p, make_inputs(p, Distribution::normal, 3), 0);
    std::vector<float> first;
    for (int run = 0; run < (device().backend == "cuda" ? 5 : 2); ++run) {
      CHECK(bench.check(variant).ok);
      if (run == 0) first = bench.result();
      CHECK(bench.result() == first);
    }
  }
}

#ifdef AL_EMULATOR
TEST_CASE("a device with another order of elements is found out, and the stage makes do") {
  Problem p;
  p.dtype = DType::bf16;
  const Variant& asked = find_variant(stage_08_wmma, "asked_layout");
  CHECK(refusal(asked, p, device()).find("another order") != std::string::npos);
  CHECK(stage_08_wmma.best(p, device()) == 7);
  const GpuFragments as_on_a_gpu;
  CHECK(refusal(asked, p, device()) == "");
  CHECK(stage_08_wmma.best(p, device()) == 8);
}

// All but the last variant must not care.
TEST_CASE("the order of the elements does not matter to the others") {
  for (const Variant& variant : stage_08_wmma.variants) {
    for (const Problem& p : shapes()) {
      if (p.kv_seq != 129 || refusal(variant, p, device()) != "") continue;
      check_variant(variant, p, Distribution::normal);
    }
  }
}
#endif

TEST_CASE("what the stage does not do is refused by name") {
  const Variant &first = stage_08_wmma.variants[0], &last = stage_08_wmma.variants[7];
  const auto why = [](const Variant& variant, auto change) {
    Problem p;
    DeviceInfo gpu = device();
    change(p, gpu);
    return refusal(variant, p, gpu);
  };
  const auto says = [](const std::string& text, const char* word) {
    INFO(text);
    return text.find(word) != std::string::npos;
  };
  using P = Problem&;
  using G = DeviceInfo&;
  CHECK(says(why(last, [](P p, G) { p.operation = Operation::pv; }), "whole of attention"));
  CHECK(says(why(last, [](P p, G) { p.dtype = DType::fp32; }), "fp16 and bf16"));
  CHECK(says(why(last, [](P p, G) { p.head_dim = 256; }), "32, 64 and 128"));
  CHECK(says(why(first, [](P p, G) { p.head_dim = 32; }), "64 and 128"));
  CHECK(says(why(first, [](P p, G) { p.dtype = DType::bf16; }), "fp16"));
  CHECK(says(why(last, [](P, G gpu) { gpu.sm = 70; }), "sm_75"));
  CHECK(says(why(last, [](P p, G gpu) { p.dtype = DType::bf16, gpu.sm = 75; }), "sm_80"));
  CHECK(says(why(stage_08_wmma.variants[6],
                 [](P, G gpu) { gpu.sm = 75, gpu.shared_per_block = 64 * 1024; }),
             "shared memory"));
  CHECK(why(last, [](P, G gpu) { gpu.sm = 75, gpu.shared_per_block = 64 * 1024; }) == "");
}
