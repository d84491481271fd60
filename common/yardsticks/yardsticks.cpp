#include "common/yardsticks/yardsticks.hpp"

#include <cmath>
#include <string>

#include "common/yardsticks/cublas.hpp"
#include "common/yardsticks/cudnn.hpp"

namespace al {
namespace {

using cublas::Units;

std::size_t workspace(const Problem&) { return cublas::kWorkspaceBytes; }

// All of S or P, masked or not; every matrix through DRAM once.
double flops(const Problem& p) { return 2.0 * p.score_elements() * p.head_dim; }
double bytes(const Problem& p) { return static_cast<double>(p.in_bytes() + p.out_bytes()); }

Cost cost_fp32(const Problem& p) { return {.ffma_flops = flops(p), .dram_bytes = bytes(p)}; }

// The ceiling is that of fp16; TF32 runs at half its rate.
Cost cost_tensor(const Problem& p) {
  return {.tensor_flops = (p.dtype == DType::fp32 ? 2 : 1) * flops(p), .dram_bytes = bytes(p)};
}

template <Units UNITS>
std::string refuse_scores(const Problem& p, const DeviceInfo& device) {
  return cublas::refuse(p, UNITS, device);
}

template <Units UNITS>
std::string refuse_pv(const Problem& p, const DeviceInfo& device) {
  if (p.causal) return "cuBLAS has no mask: it would read the masked entries of P; use --full";
  return cublas::refuse(p, UNITS, device);
}

template <Units UNITS>
void launch_scores(const Problem& p, const Arguments& a, Stream stream) {
  cublas::gemm(cublas::scores(p, UNITS, a.q, a.k, a.out), a.workspace, stream);
}

template <Units UNITS>
void launch_pv(const Problem& p, const Arguments& a, Stream stream) {
  cublas::gemm(cublas::pv(p, UNITS, a.p, a.v, a.out), a.workspace, stream);
}

constexpr Variant kScores[] = {
    {.name = "cublas_fp32",
     .idea = "cuBLAS on the FP32 units, no TF32; computes the masked half too",
     .prior = nullptr,
     .operation = Operation::scores,
     .refuse = refuse_scores<Units::fp32>,
     .workspace = workspace,
     .cost = cost_fp32,
     .launch = launch_scores<Units::fp32>},
    {.name = "cublas_tensor",
     .idea = "cuBLAS on the tensor cores (fp32 inputs as TF32); computes the masked half too",
     .prior = nullptr,
     .operation = Operation::scores,
     .refuse = refuse_scores<Units::tensor>,
     .workspace = workspace,
     .cost = cost_tensor,
     .launch = launch_scores<Units::tensor>},
};

constexpr Variant kPV[] = {
    {.name = "cublas_fp32",
     .idea = "cuBLAS on the FP32 units, no TF32",
     .prior = nullptr,
     .operation = Operation::pv,
     .refuse = refuse_pv<Units::fp32>,
     .workspace = workspace,
     .cost = cost_fp32,
     .launch = launch_pv<Units::fp32>},
    {.name = "cublas_tensor",
     .idea = "cuBLAS on the tensor cores (fp32 inputs as TF32)",
     .prior = nullptr,
     .operation = Operation::pv,
     .refuse = refuse_pv<Units::tensor>,
     .workspace = workspace,
     .cost = cost_tensor,
     .launch = launch_pv<Units::tensor>},
};

Cost cost_least(const Problem& p) {
  const Work work = minimum_work(p);
  if (is_fp8(p.dtype)) {
    return {.tensor_fp8_flops = work.flops,
            .exponentials = work.flops / 4 / p.head_dim,
            .dram_bytes = work.bytes};
  }
  return {.tensor_flops = work.flops, .dram_bytes = work.bytes};
}

// Of 8 bits O is rounded to e4m3 as well, which 06_fp8_prefetch_v3/stage.cu says the size of, as of
// what Hopper's products of 8 bits cut off.
Slack slack_fp8(const Problem& p) {
  if (!is_fp8(p.dtype)) return {};
  return {.products = 3 * std::sqrt((p.head_dim + p.head_dim / 32) / 3.0) * 0x1p-13,
          .out = 8 * 0.0265};
}

// Not constant, for the row names the version it was measured with.
std::span<const Variant> attention() {
  static const std::string idea = cudnn::name() + ", its fused forward kernel; writes LSE too";
  static const Variant variants[] = {{.name = "cudnn",
                                      .idea = idea.c_str(),
                                      .prior = nullptr,
                                      .operation = Operation::attention,
                                      .features = {.fp8 = true, .kv_len = true, .pages = true},
                                      .refuse = cudnn::refuse,
                                      .workspace = cudnn::workspace,
                                      .cost = cost_least,
                                      .slack = slack_fp8,
                                      .launch = cudnn::attention,
                                      .finish = cudnn::widen_O}};
  return variants;
}

}  // namespace

std::span<const Variant> yardsticks(Operation operation) {
  if (operation == Operation::scores) return kScores;
  if (operation == Operation::pv) return kPV;
  if (operation == Operation::attention) return attention();
  return {};
}

}  // namespace al
