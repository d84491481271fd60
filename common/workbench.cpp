#include "common/workbench.hpp"

#include <cstdio>
#include <string>

#include "common/error.hpp"
#include "common/poison.cuh"

namespace al {
namespace {

std::string gigabytes(double bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g GB", bytes / 1e9);
  return text;
}

bool wants_lse(const Problem& p) { return p.operation == Operation::attention; }

std::size_t lse_bytes_of(const Problem& p) { return wants_lse(p) ? p.q_rows() * sizeof(float) : 0; }

// Bytes of one set of buffers: all that a run reads and writes.
std::size_t set_bytes_of(const Problem& p, std::size_t workspace_bytes) {
  return p.in_bytes() + p.out_bytes() + lse_bytes_of(p) + workspace_bytes;
}

// Reads the rows of `reference` out of a [q_rows, columns] tensor; neighbours in one copy.
std::vector<float> read_rows(const DeviceBuffer& out, const std::vector<std::int64_t>& rows,
                             int columns, DType dtype) {
  const std::size_t row_bytes = columns * bytes_of(dtype);
  std::vector<std::byte> raw(rows.size() * row_bytes);
  for (std::size_t first = 0; first < rows.size();) {
    std::size_t last = first + 1;
    while (last < rows.size() && rows[last] == rows[last - 1] + 1) ++last;
    out.read(raw.data() + first * row_bytes, (last - first) * row_bytes, rows[first] * row_bytes);
    first = last;
  }
  return decode(dtype, raw.data(), rows.size() * columns);
}

}  // namespace

std::string too_large(const Problem& problem, std::size_t workspace_bytes) {
  const std::size_t bytes = set_bytes_of(problem, workspace_bytes), free = free_memory();
  if (bytes <= free) return "";
  return to_string(problem) + " needs " + gigabytes(bytes) + " of device memory (inputs " +
         gigabytes(problem.in_bytes()) + ", result " + gigabytes(problem.out_bytes()) +
         ", workspace " + gigabytes(workspace_bytes) + ") and " + gigabytes(free) +
         " are free; choose a smaller --batch, --heads or --seq";
}

Arguments Workbench::BufferSet::arguments() const {
  return {.q = q.data(),
          .k = k.data(),
          .v = v.data(),
          .s = s.data(),
          .p = p.data(),
          .out = out.data(),
          .lse = static_cast<float*>(lse.data()),
          .workspace = workspace.data(),
          .q_scale = static_cast<const float*>(q_scale.data()),
          .k_scale = static_cast<const float*>(k_scale.data()),
          .v_scale = static_cast<const float*>(v_scale.data()),
          .kv_len = static_cast<const int*>(kv_len.data()),
          .page_table = static_cast<const int*>(page_table.data()),
          .max_pages = max_pages};
}

Workbench::Workbench(const Problem& problem, const HostInputs& inputs, std::size_t workspace_bytes)
    : problem_(problem) {
  const std::size_t lse_bytes = lse_bytes_of(problem);
  const std::size_t set_bytes = set_bytes_of(problem, workspace_bytes);
  const std::size_t free = free_memory();
  int sets = device().backend == "cuda" ? buffer_sets(set_bytes) : 1;  // rotation is for timing
  while (sets > 1 && sets * set_bytes > free / 2) --sets;

  reference_ = reference(problem, inputs, rows_to_check(problem));

  const std::vector<int> page_table = make_page_table(problem, inputs.seed);
  const auto q = encode(problem.dtype, inputs.q), k = cache_bytes(problem, inputs.k, page_table),
             v = cache_bytes(problem, inputs.v, page_table);
  for (int i = 0; i < sets; ++i) {
    BufferSet& set = sets_.emplace_back();
    set.q = uploaded(q, "Q");
    set.k = uploaded(k, "K");
    set.v = uploaded(v, "V");
    set.q_scale = uploaded(inputs.q_scale, "q_scale");
    set.k_scale = uploaded(inputs.k_scale, "k_scale");
    set.v_scale = uploaded(inputs.v_scale, "v_scale");
    set.kv_len = uploaded(problem.kv_len, "kv_len");
    set.page_table = uploaded(page_table, "page_table");
    set.max_pages = problem.max_pages();
    set.s = filled(problem, Tensor::s, inputs, "S");
    set.p = filled(problem, Tensor::p, inputs, "P");
    set.out = DeviceBuffer(problem.out_bytes(), result_name(problem));
    if (lse_bytes > 0) set.lse = DeviceBuffer(lse_bytes, "LSE");
    if (workspace_bytes > 0) set.workspace = DeviceBuffer(workspace_bytes, "workspace");
  }
}

ErrorReport Workbench::compare_with_oracle(const BufferSet& set, const Variant& variant) const {
  if (variant.finish) {
    variant.finish(problem_, set.arguments(), nullptr);
    synchronize();
  }
  const auto rows = read_rows(set.out, reference_.rows, reference_.columns, problem_.out_dtype());
  std::vector<float> lse;
  if (wants_lse(problem_)) lse = read_rows(set.lse, reference_.rows, 1, DType::fp32);
  ErrorReport error =
      compare(problem_, reference_, rows, lse, variant.slack ? variant.slack(problem_) : Slack{});
  if (const std::int64_t unwritten = count_unwritten(problem_, set.out.data());
      error.ok && unwritten > 0) {
    error.ok = false;
    error.why = std::to_string(unwritten) + " elements of the result were never written";
  }
  return error;
}

void Workbench::prepare(BufferSet& set, const Variant& variant) const {
  set.out.poison();
  if (set.lse.size() > 0) set.lse.poison();
  if (set.workspace.size() > 0) set.workspace.poison();
  if (variant.zeroed) {
    const std::vector<std::byte> zeros(variant.zeroed(problem_));
    set.workspace.write(zeros.data(), zeros.size());
  }
}

ErrorReport Workbench::check(const Variant& variant) {
  BufferSet& set = sets_.front();
  prepare(set, variant);
  profiler_start();
  variant.launch(problem_, set.arguments(), nullptr);
  synchronize();
  profiler_stop();
  return compare_with_oracle(set, variant);
}

std::vector<float> Workbench::result() const {
  const DType dtype = problem_.out_dtype();
  std::vector<std::byte> raw(problem_.out_bytes());
  sets_.front().out.read(raw.data(), raw.size());
  return decode(dtype, raw.data(), problem_.out_elements());
}

std::vector<float> Workbench::lse() const {
  std::vector<float> values(problem_.q_rows());
  sets_.front().lse.read(values.data(), values.size() * sizeof(float));
  return values;
}

}  // namespace al
