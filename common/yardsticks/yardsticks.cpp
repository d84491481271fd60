#include "common/yardsticks/yardsticks.hpp"

#include <limits>

#include "common/yardsticks/cublas.hpp"

namespace al {
namespace {

std::string refuse_cublas(const Problem& problem) {
  if (std::int64_t{problem.group()} * problem.seq > std::numeric_limits<int>::max()) {
    return "cuBLAS counts rows in 32 bits; choose a smaller --seq";
  }
  return cublas::why_absent();
}

std::string refuse_fp32(const Problem& problem, const DeviceInfo&) {
  if (problem.dtype != DType::fp32) {
    return "cuBLAS multiplies fp16 and bf16 on the tensor cores only (cublas_tensor); this row "
           "takes --dtype fp32";
  }
  return refuse_cublas(problem);
}

std::string refuse_tensor(const Problem& problem, const DeviceInfo& device) {
  if (device.sm < 80 && problem.dtype != DType::fp16) {
    return std::string("tensor cores take ") + to_string(problem.dtype) +
           " from sm_80 on, and this is sm_" + std::to_string(device.sm) + "; choose --dtype fp16";
  }
  return refuse_cublas(problem);
}

// S = scale * Q K^T. The query heads of a group lie side by side, so each key head meets one
// matrix of [group * Nq, D]. cuBLAS knows no mask: it computes all of S, also when causal.
void scores(const Problem& problem, const Arguments& arguments, cublas::Units units,
            Stream stream) {
  cublas::gemm({.batch = problem.batch * problem.kv_heads,
                .m = problem.group() * problem.seq,
                .n = problem.kv_seq,
                .k = problem.head_dim,
                .alpha = static_cast<float>(problem.scale),
                .units = units,
                .in = problem.dtype,
                .out = DType::fp32,
                .a = arguments.q,
                .b = arguments.k,
                .c = arguments.out},
               arguments.workspace, stream);
}

std::size_t workspace(const Problem&) { return cublas::kWorkspaceBytes; }

// All of S, masked or not; every matrix through DRAM once.
double flops(const Problem& p) { return 2.0 * p.score_elements() * p.head_dim; }
double bytes(const Problem& p) { return static_cast<double>(p.in_bytes() + p.out_bytes()); }

Cost cost_fp32(const Problem& p) { return {.ffma_flops = flops(p), .dram_bytes = bytes(p)}; }

// The ceiling is that of fp16; TF32 runs at half its rate.
Cost cost_tensor(const Problem& p) {
  return {.tensor_flops = (p.dtype == DType::fp32 ? 2 : 1) * flops(p), .dram_bytes = bytes(p)};
}

constexpr Variant kScores[] = {
    {.name = "cublas_fp32",
     .idea = "cuBLAS on the FP32 units, no TF32; computes the masked half too",
     .prior = nullptr,
     .refuse = refuse_fp32,
     .workspace = workspace,
     .cost = cost_fp32,
     .launch = [](const Problem& problem, const Arguments& arguments,
                  Stream stream) { scores(problem, arguments, cublas::Units::fp32, stream); }},
    {.name = "cublas_tensor",
     .idea = "cuBLAS on the tensor cores (fp32 inputs as TF32); computes the masked half too",
     .prior = nullptr,
     .refuse = refuse_tensor,
     .workspace = workspace,
     .cost = cost_tensor,
     .launch = [](const Problem& problem, const Arguments& arguments,
                  Stream stream) { scores(problem, arguments, cublas::Units::tensor, stream); }},
};

}  // namespace

std::span<const Variant> yardsticks(Operation operation) {
  return operation == Operation::scores ? std::span<const Variant>(kScores)
                                        : std::span<const Variant>();
}

}  // namespace al
