#include "common/tests/small_stages.hpp"

#include "common/kernel_shape.cuh"
#include "common/launch.cuh"
#include "common/vector.cuh"

namespace al {
namespace {

// Everything in fp16 but S, so that one dtype will do.
__global__ void scores_of_row(KernelShape shape, const __half* Q, const __half* K, float* S) {
  const int row = blockIdx.x, kv = shape.kv_head(row / shape.Nq) * shape.Nkv;
  for (int j = 0; j < shape.visible_keys(row % shape.Nq); ++j) {
    float dot = 0;
    for (int d = 0; d < shape.D; ++d) {
      dot += to_float(Q[row * shape.D + d]) * to_float(K[(kv + j) * shape.D + d]);
    }
    S[row * shape.Nkv + j] = shape.scale * dot;
  }
}

template <typename T>
__global__ void softmax_of_row(KernelShape shape, const T* S, __half* P, float* LSE) {
  const int row = blockIdx.x, visible = shape.visible_keys(row % shape.Nq);
  float m = -INFINITY, l = 0;
  for (int j = 0; j < visible; ++j) m = fmaxf(m, to_float(S[row * shape.Nkv + j]));
  const float shift = m == -INFINITY ? 0 : m;
  for (int j = 0; j < visible; ++j) l += expf(to_float(S[row * shape.Nkv + j]) - shift);
  for (int j = 0; j < visible; ++j) {
    const float p = l == 0 ? 0 : expf(to_float(S[row * shape.Nkv + j]) - shift) / l;
    P[row * shape.Nkv + j] = from_float<__half>(p);
  }
  if (LSE) LSE[row] = m + logf(l);
}

__global__ void pv_of_row(KernelShape shape, const __half* P, const __half* V, __half* O) {
  const int row = blockIdx.x, kv = shape.kv_head(row / shape.Nq) * shape.Nkv;
  for (int d = 0; d < shape.D; ++d) {
    float sum = 0;
    for (int j = 0; j < shape.visible_keys(row % shape.Nq); ++j) {
      sum += to_float(P[row * shape.Nkv + j]) * to_float(V[(kv + j) * shape.D + d]);
    }
    O[row * shape.D + d] = from_float<__half>(sum);
  }
}

LaunchConfig a_thread_a_row(const Problem& p, Stream stream) {
  return {.name = "row",
          .grid = dim3(static_cast<unsigned>(p.q_rows())),
          .block = dim3(1),
          .stream = stream};
}
const __half* half(const void* data) { return static_cast<const __half*>(data); }
__half* half(void* data) { return static_cast<__half*>(data); }

void run_scores(const Problem& p, const Arguments& a, Stream stream) {
  launch(scores_of_row, a_thread_a_row(p, stream), KernelShape(p), half(a.q), half(a.k),
         static_cast<float*>(a.out));
}
void run_softmax(const Problem& p, const Arguments& a, Stream stream) {
  launch(softmax_of_row<__half>, a_thread_a_row(p, stream), KernelShape(p), half(a.s), half(a.out),
         a.lse);
}
// S in the workspace, and P behind it where it is not the result.
void run_pipeline(const Problem& p, const Arguments& a, Stream stream) {
  auto* const S = static_cast<float*>(a.workspace);
  const bool whole = p.operation == Operation::attention;
  __half* const P = half(whole ? static_cast<void*>(S + p.score_elements()) : a.out);
  launch(scores_of_row, a_thread_a_row(p, stream), KernelShape(p), half(a.q), half(a.k), S);
  launch(softmax_of_row<float>, a_thread_a_row(p, stream), KernelShape(p),
         static_cast<const float*>(S), P, a.lse);
  if (whole) {
    launch(pv_of_row, a_thread_a_row(p, stream), KernelShape(p), static_cast<const __half*>(P),
           half(a.v), half(a.out));
  }
}
void run_pv(const Problem& p, const Arguments& a, Stream stream) {
  launch(pv_of_row, a_thread_a_row(p, stream), KernelShape(p), half(a.p), half(a.v), half(a.out));
}
// Wrong on purpose: the mask is forgotten.
void run_unmasked_pv(const Problem& p, const Arguments& a, Stream stream) {
  Problem full = p;
  full.causal = false;
  run_pv(full, a, stream);
}

Variant variant(const char* name, Operation operation, const char* prior,
                void (*run)(const Problem&, const Arguments&, Stream)) {
  return {.name = name,
          .idea = "one thread a row",
          .prior = prior,
          .operation = operation,
          .refuse = [](const Problem&, const DeviceInfo&) { return std::string(); },
          .workspace = [](const Problem& p) { return std::size_t(6 * p.score_elements()); },
          .cost = nullptr,
          .launch = run};
}

const Variant kScores[] = {variant("rows", Operation::scores, nullptr, run_scores)};
const Variant kRest[] = {
    variant("softmax", Operation::softmax, nullptr, run_softmax),
    variant("pv", Operation::pv, nullptr, run_pv),
    variant("probabilities", Operation::probabilities, kPriorStage, run_pipeline),
    variant("attention", Operation::attention, "probabilities", run_pipeline),
};
const Variant kWrong[] = {variant("pv", Operation::pv, nullptr, run_unmasked_pv)};

int best(const Problem& p, const DeviceInfo&) { return p.operation == Operation::scores ? 0 : 3; }

}  // namespace

SmallStages::SmallStages()
    : first{"first", "S", Operation::scores, nullptr, kScores, best, {}},
      second{"second", "the rest", Operation::attention, &first, kRest, best, {}},
      wrong{"wrong", "O", Operation::attention, nullptr, kWrong, best, {}} {}

}  // namespace al
