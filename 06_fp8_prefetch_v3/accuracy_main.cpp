// 06_fp8_prefetch_v3_accuracy: what 8 bits cost, by format, scale and rotation, on normal data and
// on outliers, beside what theory says. On a GPU also the time that quantising takes.
#include <cmath>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "06_fp8_prefetch_v3/accuracy.hpp"
#include "common/benchmark.hpp"
#include "common/buffer.hpp"
#include "common/error.hpp"
#include "common/options.hpp"
#include "common/roofline.hpp"

namespace al::fp8 {
namespace {

constexpr struct {
  const char* name;
  Setting setting;
} kLines[] = {
    {"e4m3", {}},
    {"e4m3, a factor a tensor", {.how = {.per_head = false}}},
    {"e4m3, Q and K rotated", {.how = {.rotate = true}}},
    {"e4m3, P in [0, 1]", {.scale_P = false}},
    {"e5m2", {.how = {.format = DType::e5m2}}},
};

void print_errors(const Errors& e) {
  std::printf("%9.4f %9.4f %9.4f %9.5f", e.whole, e.predicted, e.worst_row, e.max_abs);
}

void print_table(const Problem& p) {
  std::printf("%s\n", to_string(p).c_str());
  std::printf("%-27s %-37s  %s\n", "row-relative L2 of O", "against the 8-bit inputs",
              "against the 16-bit inputs");
  for (int i = 0; i < 2; ++i) {
    std::printf(i == 0 ? "%-27s " : " ", "");
    std::printf("%9s %9s %9s %9s", "whole", "predicted", "worst row", "max abs");
  }
  std::printf("\n");
  std::vector<Setting> settings;
  for (const auto& line : kLines) settings.push_back(line.setting);
  for (const Distribution data : {Distribution::normal, Distribution::outliers}) {
    std::printf("%s\n",
                data == Distribution::normal ? "normal data" : "one in 1024 is 20 times larger");
    const std::vector<Accuracy> accuracies = measure_accuracy(p, data, settings);
    for (std::size_t i = 0; i < accuracies.size(); ++i) {
      std::printf("  %-25s ", kLines[i].name);
      print_errors(accuracies[i].kernel);
      std::printf(" ");
      print_errors(accuracies[i].total);
      std::printf("\n");
    }
  }
}

#ifndef AL_EMULATOR
void print_time(const char* name, double bytes, const Enqueue& enqueue, int sets) {
  const double ms = benchmark(enqueue, sets).primary.median_ms, gbps = bytes / ms / 1e6;
  std::printf("  %-35s %6.0f MB %8.4f ms %6.0f GB/s %4.0f %% of a copy\n", name, bytes / 1e6, ms,
              gbps, 100 * gbps / copy_gbps_at(static_cast<std::size_t>(bytes)));
}

// What comes before the attention of every row that takes 16 bits, or 8 bits with V in rows.
void print_times(const Problem& p) {
  const int key_groups = key_groups_of_best(p);
  const HostInputs in = make_inputs(p, Distribution::normal, 1);
  const std::vector<std::byte> q_bytes = encode(p.dtype, in.q), k_bytes = encode(p.dtype, in.k),
                               v_bytes = encode(p.dtype, in.v);
  const std::size_t bytes = q_bytes.size() + k_bytes.size() + v_bytes.size();
  const std::size_t workspace_bytes = Tensors8::bytes(p, key_groups);
  const int sets = buffer_sets(bytes + workspace_bytes);
  std::vector<DeviceBuffer> q, k, v, workspace;
  for (int i = 0; i < sets; ++i) {
    q.emplace_back(q_bytes.size(), "Q").write(q_bytes.data(), q_bytes.size());
    k.emplace_back(k_bytes.size(), "K").write(k_bytes.data(), k_bytes.size());
    v.emplace_back(v_bytes.size(), "V").write(v_bytes.data(), v_bytes.size());
    workspace.emplace_back(workspace_bytes, "workspace");
  }
  std::printf("before attention\n");
  for (const bool rotate : {false, true}) {
    // Read twice, for the largest and to be divided, and written in half the bytes.
    print_time(
        rotate ? "Q, K, V to 8 bits, Q and K rotated" : "Q, K, V to 8 bits", 2.5 * bytes,
        [&](int set, Stream stream) {
          launch_quantise(p, {.rotate = rotate},
                          {.q = q[set].data(), .k = k[set].data(), .v = v[set].data()},
                          Tensors8(p, key_groups, workspace[set].data()), key_groups, stream);
        },
        sets);
  }
  Problem p8 = p;
  p8.dtype = DType::e4m3;
  print_time(
      "V of 8 bits laid in tiles", 2.0 * p.kv_elements(),
      [&](int set, Stream stream) {
        launch_tile_V(p8, v[set].data(), Tensors8(p, key_groups, workspace[set].data()).v_tiles,
                      key_groups, stream);
      },
      sets);
}
#else
void print_times(const Problem&) {}
#endif

int run(int argc, char** argv) {
  const auto options =
      parse_options(argc, argv,
                    {.name = "06_fp8_prefetch_v3_accuracy",
                     .title = "What 8-bit operands cost in accuracy, measured and predicted",
                     .variants = {}});
  if (!options) return static_cast<int>(ExitCode::right);
  for (const NamedProblem& named : options->problems) {
    const Problem& p = named.problem;
    if ((p.dtype != DType::fp16 && p.dtype != DType::bf16) ||
        (p.head_dim != 64 && p.head_dim != 128 && p.head_dim != 256)) {
      throw usage_error("The table is made of fp16 or bf16 inputs at --head-dim 64, 128 or 256.");
    }
    print_table(p);
    print_times(p);
  }
  return static_cast<int>(ExitCode::right);
}

}  // namespace
}  // namespace al::fp8

int main(int argc, char** argv) {
  try {
    return al::fp8::run(argc, argv);
  } catch (const al::Error& error) {
    std::fprintf(stderr, "06_fp8_prefetch_v3_accuracy: %s\n", error.what());
    return static_cast<int>(error.code);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "06_fp8_prefetch_v3_accuracy: %s\n", error.what());
    return 1;
  }
}
