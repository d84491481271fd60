#include "common/lab/run.hpp"

#include <cstdio>
#include <exception>
#include <nlohmann/json.hpp>
#include <ostream>
#include <vector>

#include "common/buffer.hpp"
#include "common/data.hpp"
#include "common/error.hpp"
#include "common/files.hpp"
#include "common/lab/job.hpp"
#include "common/npy.hpp"

#ifdef AL_EMULATOR
#include "common/emulator/launch.hpp"
#else
#include "common/benchmark.hpp"
#endif

namespace al::lab {
namespace {

using Json = nlohmann::json;

DeviceBuffer poisoned(std::size_t bytes, const char* name) {
  if (bytes == 0) return {};
  DeviceBuffer buffer(bytes, name);
  buffer.poison();
  return buffer;
}

// Every matrix [rows, columns] of `values` turned.
std::vector<float> transposed(const std::vector<float>& values, int rows, int columns) {
  std::vector<float> turned(values.size());
  const std::size_t matrix = std::size_t(rows) * columns;
  for (std::size_t at = 0; at < values.size(); ++at) {
    const std::size_t row = at % matrix / columns, column = at % columns;
    turned[at / matrix * matrix + column * rows + row] = values[at];
  }
  return turned;
}

#ifdef AL_EMULATOR
Json counts() {
  const Counts c = emulator::take_counts();
  return {{"global_load_bytes", c.global_load_bytes},
          {"global_store_bytes", c.global_store_bytes},
          {"global_requests", c.global_requests},
          {"global_sectors", c.global_sectors},
          {"shared_requests", c.shared_requests},
          {"shared_wavefronts", c.shared_wavefronts},
          {"barriers", c.barriers},
          {"shuffles", c.shuffles},
          {"blocks", c.blocks}};
}
#else
Json counts() { return nullptr; }
#endif

void run_case(const Case& c, const Kernel& kernel, const std::string& folder, int n) {
  const Problem& p = c.problem;
  const HostInputs inputs = make_inputs(p, c.data, c.seed);
  const std::vector<int> page_table = make_page_table(p, inputs.seed);
  const auto laid = [&](const std::vector<float>& x, bool turned) {
    return turned ? transposed(x, p.kv_seq, p.head_dim) : x;
  };
  const DeviceBuffer q_buffer = uploaded(encode(p.dtype, inputs.q), "Q"),
                     k_buffer =
                         uploaded(cache_bytes(p, laid(inputs.k, c.k_transposed), page_table), "K"),
                     v_buffer =
                         uploaded(cache_bytes(p, laid(inputs.v, c.v_transposed), page_table), "V"),
                     s_buffer = filled(p, Tensor::s, inputs, "S"),
                     p_buffer = filled(p, Tensor::p, inputs, "P"),
                     q_scale = uploaded(inputs.q_scale, "q_scale"),
                     k_scale = uploaded(inputs.k_scale, "k_scale"),
                     v_scale = uploaded(inputs.v_scale, "v_scale"),
                     kv_len = uploaded(p.kv_len, "kv_len"),
                     pages = uploaded(page_table, "page_table"),
                     out = poisoned(p.out_bytes(), result_name(p));
  const bool has_lse = p.operation == Operation::attention;
  const DeviceBuffer lse = poisoned(has_lse ? p.q_rows() * sizeof(float) : 0, "LSE");
  DeviceBuffer workspace =
      poisoned(kernel.workspace ? kernel.workspace(p) : std::size_t{0}, "workspace");
  if (kernel.zeroed) {
    const std::vector<std::byte> zeros(kernel.zeroed(p));
    workspace.write(zeros.data(), zeros.size());
  }
  const Arguments arguments{.q = q_buffer.data(),
                            .k = k_buffer.data(),
                            .v = v_buffer.data(),
                            .s = s_buffer.data(),
                            .p = p_buffer.data(),
                            .out = out.data(),
                            .lse = static_cast<float*>(lse.data()),
                            .workspace = workspace.data(),
                            .q_scale = static_cast<const float*>(q_scale.data()),
                            .k_scale = static_cast<const float*>(k_scale.data()),
                            .v_scale = static_cast<const float*>(v_scale.data()),
                            .kv_len = static_cast<const int*>(kv_len.data()),
                            .page_table = static_cast<const int*>(pages.data()),
                            .max_pages = p.max_pages()};

  Json state;
  counts();  // those of making the inputs
  try {
    kernel.launch(p, arguments, nullptr);
    synchronize();
    state["counts"] = counts();
  } catch (const Error& error) {
    state["report"] = error.what();
  }
  std::vector<std::byte> raw(p.out_bytes());
  if (state.contains("counts")) {
    out.read(raw.data(), raw.size());
    write_npy(result_file(folder, n), {static_cast<int>(p.q_rows()), p.out_columns()}, 4,
              decode(p.out_dtype(), raw.data(), p.out_elements()));
    if (has_lse) {
      std::vector<float> values(p.q_rows());
      lse.read(values.data(), values.size() * sizeof(float));
      write_npy(lse_file(folder, n), {static_cast<int>(values.size())}, 4, values);
    }
  }
#ifndef AL_EMULATOR
  if (state.contains("counts")) {
    const auto enqueue = [&](int, Stream stream) { kernel.launch(p, arguments, stream); };
    state["ms"] = benchmark(enqueue, 1, 10).primary.median_ms;
  }
#endif
  write_file(state_file(folder, n), [&](std::ostream& to) { to << state.dump(); });
}

}  // namespace

int run(int argc, char** argv, const Kernel& kernel) {
  try {
    if (argc != 3) throw usage_error("Usage: run JOB.json FOLDER");
    const Job job = read_job(argv[1]);
    for (int n = 0; n < static_cast<int>(job.cases.size()); ++n) {
      run_case(job.cases[n], kernel, argv[2], n);
    }
    return 0;
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(error.code);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}

}  // namespace al::lab
