// cuBLAS, opened at run time: the program neither needs it to build nor to start.
#pragma once

#include <string>

#include "common/device.hpp"
#include "common/problem.hpp"

namespace al::cublas {

// Which units multiply. fp32 inputs on the tensor cores are rounded to TF32 (10 bits of mantissa).
enum class Units { fp32, tensor };

// C[b] = alpha * A[b] B[b] for b in 0 ... batch-1, or A[b] B[b]^T: row-major A [m, k], C [m, n] and
// B [k, n] (transposed: [n, k]), each batch right behind the one before. Sums in fp32.
struct Gemm {
  int batch, m, n, k;
  float alpha;
  Units units;
  DType in, out;
  const void* a;
  const void* b;
  bool b_transposed;
  void* c;
};

// S = scale * Q K^T (fp32), and O = P V. The query heads of a group lie side by side, so each
// key/value head meets one matrix of group * Nq rows. cuBLAS knows no mask: it reads and computes
// the masked entries too.
Gemm scores(const Problem& problem, Units units, const void* q, const void* k, void* s);
Gemm pv(const Problem& problem, Units units, const void* p, const void* v, void* o);

// Why those cannot be computed here with `units`; empty: they can.
std::string refuse(const Problem& problem, Units units, const DeviceInfo& device);

// Device memory cuBLAS wants beside the matrices; what NVIDIA recommends for sm_90. Giving it our
// own also lets a call be captured in a graph.
constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

// Empty when cuBLAS is there; else why it is not, and what to do.
std::string why_absent();

// Enqueues the product. Throws Error(wrong_result) with cuBLAS's own words when it refuses.
void gemm(const Gemm& gemm, void* workspace, Stream stream);

}  // namespace al::cublas
