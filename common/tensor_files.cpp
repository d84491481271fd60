#include "common/tensor_files.hpp"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <vector>

#include "common/npy.hpp"

namespace al {

HostInputs load_inputs(const std::string& directory, const Problem& p, Distribution distribution,
                       std::uint64_t seed) {
  HostInputs inputs{.distribution = distribution, .seed = seed};
  const auto read = [&](Tensor tensor, const char* file, DType dtype, int heads, std::int64_t rows,
                        std::vector<float>& values, std::vector<float>& scale) {
    if (!reads(p.operation, tensor)) return;
    values = read_npy((std::filesystem::path(directory) / file).string());
    scale = store(dtype, heads, rows * p.head_dim, values, p.one_factor);
  };
  read(Tensor::q, "q.npy", p.dtype, p.heads, p.seq, inputs.q, inputs.q_scale);
  read(Tensor::k, "k.npy", p.cache_dtype(), p.kv_heads, p.kv_seq, inputs.k, inputs.k_scale);
  read(Tensor::v, "v.npy", p.cache_dtype(), p.kv_heads, p.kv_seq, inputs.v, inputs.v_scale);
  return inputs;
}

void save_result(const std::string& directory, const Workbench& bench, const Problem& p) {
  const bool scores = p.operation == Operation::scores, output = reads(p.operation, Tensor::v);
  std::vector<float> result = bench.result();
  const float masked = scores ? -std::numeric_limits<float>::infinity() : 0;
  for (std::int64_t row = 0; row < p.q_rows(); ++row) {
    const auto begin = result.begin() + row * p.out_columns();
    const int visible = p.visible_columns(static_cast<int>(row % p.seq));
    std::fill(begin + visible, begin + p.out_columns(), masked);
  }
  const std::filesystem::path to(directory);
  const char* file = scores ? "s.npy" : output ? "o.npy" : "p.npy";
  const int element_bytes = p.out_dtype() == DType::fp16 ? 2 : 4;  // NumPy has no bf16
  write_npy((to / file).string(), {p.batch, p.heads, p.seq, p.out_columns()}, element_bytes,
            result);
  if (p.operation == Operation::attention) {
    write_npy((to / "lse.npy").string(), {p.batch, p.heads, p.seq}, 4, bench.lse());
  }
}

}  // namespace al
