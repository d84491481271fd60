// Chapter 07 on a GPU or in the emulator.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "07_flash_decoding/split.cuh"
#include "07_flash_decoding/stage.hpp"
#include "07_flash_decoding/tensor.cuh"
#include "common/buffer.hpp"
#include "common/hash_data.hpp"
#include "common/tests/stage_checks.hpp"
#ifdef AL_EMULATOR
#include "common/emulator/launch.hpp"
#endif

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

// Inputs and outputs of one problem on the device, for tests that launch by themselves.
struct Bench {
  Problem p;
  HostInputs inputs;
  DeviceBuffer q, k, v, out, lse, workspace;

  explicit Bench(const Problem& problem, std::size_t workspace_bytes)
      : p(problem), inputs(make_inputs(p, Distribution::normal, 3)) {
    upload();
    out = DeviceBuffer(p.out_bytes(), "O");
    lse = DeviceBuffer(p.q_rows() * sizeof(float), "LSE");
    workspace = DeviceBuffer(workspace_bytes, "workspace");
  }
  void upload() {
    const auto put = [](DeviceBuffer& buffer, DType dtype, const std::vector<float>& values,
                        const char* name) {
      const std::vector<std::byte> bytes = encode(dtype, values);
      buffer = DeviceBuffer(bytes.size(), name);
      buffer.write(bytes.data(), bytes.size());
    };
    put(q, p.dtype, inputs.q, "Q");
    put(k, p.cache_dtype(), inputs.k, "K");
    put(v, p.cache_dtype(), inputs.v, "V");
  }
  Arguments arguments() {
    out.poison();
    lse.poison();
    workspace.poison();
    const std::vector<std::byte> zeros(std::min<std::size_t>(workspace.size(), 1024));
    workspace.write(zeros.data(), zeros.size());
    return {.q = q.data(),
            .k = k.data(),
            .v = v.data(),
            .out = out.data(),
            .lse = static_cast<float*>(lse.data()),
            .workspace = workspace.data()};
  }
  std::vector<float> O() const {
    std::vector<std::byte> raw(p.out_bytes());
    out.read(raw.data(), raw.size());
    return al::decode(p.out_dtype(), raw.data(), p.out_elements());
  }
  std::vector<float> LSE() const {
    std::vector<float> values(p.q_rows());
    lse.read(values.data(), values.size() * sizeof(float));
    return values;
  }
  ErrorReport error() const {
    std::vector<std::int64_t> rows(p.q_rows());
    for (std::int64_t row = 0; row < p.q_rows(); ++row) rows[row] = row;
    return compare(p, reference(p, inputs, rows), O(), LSE());
  }
};

Problem shape(int heads, int kv_heads, int seq, int kv_seq, int head_dim) {
  Problem p;
  p.heads = heads, p.kv_heads = kv_heads, p.seq = seq, p.kv_seq = kv_seq, p.head_dim = head_dim;
  p.causal = seq > 1;
  p.scale = 1 / std::sqrt(double(head_dim));
  return p;
}

// Merges chunks by merge_kernel: of one row, o[chunk][64] and lse[chunk] to the base 2. Returns o
// and, behind it, the LSE to the base 2.
std::vector<float> merged(const std::vector<std::vector<float>>& o, const std::vector<float>& lse) {
  Problem p = shape(1, 1, 1, static_cast<int>(lse.size()), 64);
  p.dtype = DType::fp32;
  const Plan plan{.heads = 1, .row_tiles = 1, .tile = 1, .splits = p.kv_seq, .chunk = 1};
  DeviceBuffer workspace(Job::workspace_bytes(p, plan), "workspace"), out(p.out_bytes(), "O"),
      total(sizeof(float), "LSE");
  const Job job(p, {.lse = static_cast<float*>(total.data()), .workspace = workspace.data()}, plan,
                false);
  const auto at = [&](const float* pointer) {
    return reinterpret_cast<const std::byte*>(pointer) - static_cast<std::byte*>(workspace.data());
  };
  for (std::size_t c = 0; c < o.size(); ++c) {
    workspace.write(o[c].data(), 64 * sizeof(float), at(job.partials.o) + c * 64 * sizeof(float));
  }
  workspace.write(lse.data(), lse.size() * sizeof(float), at(job.partials.lse));
  launch(merge_kernel<float, 1, 64>,
         {.name = "merge_kernel",
          .grid = 1,
          .block = kMergeWarps * 32,
          .shared_bytes = shared_bytes<WarpResults<kMergeWarps, 1, 64>>()},
         static_cast<float*>(out.data()), job);
  std::vector<float> result(65);
  out.read(result.data(), 64 * sizeof(float));
  total.read(&result[64], sizeof(float));
  result[64] /= kLn2;
  return result;
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

// --- splitting and merging -----------------------------------------------------------------------

TEST_CASE("any split gives the same result") {
  using Tensor64 = TensorTile<__half, __half, 64, 4>;
  using Split128 = SplitTile<float, 128, 4>;
  const WordStream words(1, 0);
  for (int draw = 0; draw < 24; ++draw) {
    const int keys = 1 + static_cast<int>(words[3 * draw] % 4000);
    const int splits = 1 + static_cast<int>(words[3 * draw + 1] % 40);
    const int queries = 1 + static_cast<int>(words[3 * draw + 2] % 3);
    CAPTURE(keys);
    CAPTURE(splits);
    {
      const Problem p = shape(2, 1, queries, keys, 64);
      const Plan plan = make_plan(p, {8, Tensor64::BLOCK_KEYS, 1}, device(), splits);
      CHECK(plan.splits <= splits);
      Bench bench(p, Job::workspace_bytes(p, plan));
      launch_tensor<Tensor64>(p, bench.arguments(), plan, draw % 2 == 1, nullptr);
      const ErrorReport error = bench.error();
      CHECK_MESSAGE(error.ok, error.why);
    }
    Problem p = shape(4, 1, queries, keys, 128);
    p.dtype = DType::fp32;
    const Plan plan = make_plan(p, {4, Split128::BLOCK_KEYS, 1}, device(), splits);
    Bench bench(p, Job::workspace_bytes(p, plan));
    for (const bool one_launch : {false, true}) {
      launch_split<Split128>(p, bench.arguments(), plan, one_launch, nullptr);
      const ErrorReport error = bench.error();
      CHECK_MESSAGE(error.ok, error.why);
    }
  }
}

TEST_CASE("merging is associative within rounding, and a chunk that saw no key is neutral") {
  const WordStream words(2, 0);
  for (int draw = 0; draw < 20; ++draw) {
    std::vector<std::vector<float>> o;
    std::vector<float> lse;
    const int chunks = 4 + static_cast<int>(words[2000 + draw] % 60);
    for (int c = 0; c < chunks; ++c) {
      o.emplace_back();
      for (int d = 0; d < 64; ++d) o[c].push_back(normal(words, (draw * 64 + c) * 64 + d));
      lse.push_back(20 * normal(words, 100000 + draw * 64 + c));
    }
    const std::vector<float> all = merged(o, lse);
    const std::size_t cut = 2 + words[3000 + draw] % (chunks - 3);  // each part has two or more
    const std::vector<float> first =
        merged({o.begin(), o.begin() + cut}, {lse.begin(), lse.begin() + cut});
    const std::vector<float> rest =
        merged({o.begin() + cut, o.end()}, {lse.begin() + cut, lse.end()});
    const std::vector<float> both =
        merged({{first.begin(), first.begin() + 64}, {rest.begin(), rest.begin() + 64}},
               {first[64], rest[64]});
    for (int d = 0; d < 64; ++d) CHECK(std::abs(both[d] - all[d]) <= 1e-5f);
    CHECK(both[64] == doctest::Approx(all[64]).epsilon(1e-6));

    // A chunk beside one that saw nothing stays what it is.
    const std::vector<float> nothing(64, 0.0f);
    const std::vector<float> one = merged({o[0], nothing}, {lse[0], -INFINITY});
    for (int d = 0; d < 64; ++d) CHECK(one[d] == doctest::Approx(o[0][d]).epsilon(1e-5));
    const std::vector<float> none = merged({nothing, nothing}, {-INFINITY, -INFINITY});
    CHECK(std::vector<float>(none.begin(), none.begin() + 64) == std::vector<float>(64, 0));
    CHECK(none[64] == -INFINITY);
  }
}

TEST_CASE("the same bits every time, and tickets back at zero") {
  for (const Variant& variant : stage_07_flash_decoding.variants) {
    const Problem p = shape(4, 2, 2, 1500, 64);
    Bench bench(p, variant.workspace(p));
    std::vector<float> first;
    Arguments arguments = bench.arguments();
    for (int run = 0; run < 4; ++run) {
#ifdef AL_EMULATOR
      emulator::settings().seed = 100 + run;  // another order of the blocks
#endif
      bench.out.poison();
      variant.launch(p, arguments, nullptr);  // the workspace is as the run before left it
      if (run == 0) first = bench.O();
      CHECK(bench.O() == first);
    }
    if (!variant.zeroed) continue;
    std::vector<std::byte> tickets(variant.zeroed(p));
    bench.workspace.read(tickets.data(), tickets.size());
    CHECK(std::ranges::all_of(tickets, [](std::byte b) { return b == std::byte{0}; }));
  }
#ifdef AL_EMULATOR
  emulator::settings().seed = 1;
#endif
}

// V is NaN at keys that only the last query sees; its rows are NaN and all others untouched.
TEST_CASE("what a row does not see does not leak, not even as 0 * NaN") {
  for (const Variant& variant : stage_07_flash_decoding.variants) {
    for (const int kv_seq : {40, 96, 129}) {
      const Problem p = shape(2, 1, 5, kv_seq, 64);
      Bench clean(p, variant.workspace(p)), poisoned(p, variant.workspace(p));
      for (int d = 0; d < 64; ++d) {
        poisoned.inputs.v[(kv_seq - 1) * 64 + d] = std::numeric_limits<float>::quiet_NaN();
      }
      poisoned.upload();
      variant.launch(p, clean.arguments(), nullptr);
      variant.launch(p, poisoned.arguments(), nullptr);
      const std::vector<float> want = clean.O(), got = poisoned.O();
      INFO(std::string(variant.name) << " on " << to_string(p));
      int wrong = 0;
      for (int row = 0; row < 10; ++row) {
        for (int d = 0; d < 64; ++d) {
          const float o = got[row * 64 + d];
          wrong += row % 5 == 4 ? !std::isnan(o) : o != want[row * 64 + d];
        }
      }
      CHECK(wrong == 0);
    }
  }
}

// Fills V while the kernel behind it may have begun, and takes its time.
__global__ void fill_slowly(__half* V, int count, float value) {
  launch_dependents();
  wait_for_kernels_in_front();
#ifndef AL_EMULATOR
  for (const long long begin = clock64(); clock64() - begin < 20'000;) {
  }
#endif
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    V[i] = __float2half(value);
  }
}

// Every launch writes its results where the one before did, and its V too. Attention over equal
// rows of V is that row.
TEST_CASE("a chain of launches that overlap: each sees what the one in front has written") {
  const Variant& variant = find_variant(stage_07_flash_decoding, "overlapped");
  const Problem p = shape(4, 2, 1, 3000, 64);
  if (!refusal(variant, p, device()).empty()) return;
  Bench bench(p, variant.workspace(p));
  Arguments arguments = bench.arguments();
  constexpr int LAUNCHES = 12;
  std::vector<DeviceBuffer> out;
  for (int i = 0; i < LAUNCHES; ++i) {
    out.emplace_back(p.out_bytes(), "O");
    out.back().poison();
  }
  for (int i = 0; i < LAUNCHES; ++i) {
    launch(fill_slowly, {.name = "fill_slowly", .grid = 64, .block = 128, .overlaps = true},
           static_cast<__half*>(bench.v.data()), static_cast<int>(bench.v.size() / 2), float(i));
    arguments.out = out[i].data();
    variant.launch(p, arguments, nullptr);
    variant.launch(p, arguments, nullptr);  // the same again, with the same workspace
  }
  for (int i = 0; i < LAUNCHES; ++i) {
    CAPTURE(i);
    std::vector<std::byte> raw(p.out_bytes());
    out[i].read(raw.data(), raw.size());
    int wrong = 0;
    for (const float o : al::decode(DType::fp16, raw.data(), p.out_elements())) wrong += o != i;
    CHECK(wrong == 0);
  }
}

TEST_CASE("what the stage does not do is refused by name") {
  const auto why = [](const char* variant, auto change) {
    Problem p = shape(4, 2, 1, 100, 64);
    change(p);
    return refusal(find_variant(stage_07_flash_decoding, variant), p, device());
  };
  CHECK(why("split", [](Problem& p) { p.seq = 17; }).find("16 queries") != std::string::npos);
  CHECK(why("split", [](Problem& p) { p.head_dim = 32; }) == "its head dims are 64, 128 and 256");
  CHECK(why("one_launch", [](Problem& p) { p.kv_dtype = DType::e4m3; }).find("--kv-dtype") !=
        std::string::npos);
  CHECK(why("tensor_cores", [](Problem& p) { p.dtype = DType::fp32; }).find("--dtype") !=
        std::string::npos);
  CHECK(why("tensor_cores", [](Problem& p) {
          p.dtype = DType::bf16;
          p.kv_dtype = DType::e4m3;
        }) == "K and V have Q's dtype, or e4m3 with Q in fp16 (--kv-dtype)");
  CHECK(why("tensor_cores", [](Problem& p) { p.dtype = DType::e4m3; }).find("8-bit") !=
        std::string::npos);
}
