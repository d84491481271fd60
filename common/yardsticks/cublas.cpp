#include "common/yardsticks/cublas.hpp"

#include <limits>

#include "common/dynamic_library.hpp"
#include "common/error.hpp"

namespace al::cublas {
namespace {

// The part of cuBLAS's C interface that is used, with the numbers of its header cublas_api.h.
struct Context;
using Handle = Context*;
using Status = int;                                        // 0: success
constexpr int kOpN = 0, kOpT = 1;                          // CUBLAS_OP_*
constexpr int kReal32F = 0, kReal16F = 2, kReal16BF = 14;  // CUDA_R_*
constexpr int kCompute32F = 68, kCompute32FFastTF32 = 77;  // CUBLAS_COMPUTE_*
constexpr int kDefaultAlgorithm = -1;                      // CUBLAS_GEMM_DEFAULT

using Create = Status (*)(Handle*);
using SetStream = Status (*)(Handle, Stream);
using SetWorkspace = Status (*)(Handle, void*, std::size_t);
using StatusString = const char* (*)(Status);
using GemmStridedBatchedEx = Status (*)(Handle, int op_a, int op_b, int m, int n, int k,
                                        const void* alpha, const void* a, int a_type, int lda,
                                        long long stride_a, const void* b, int b_type, int ldb,
                                        long long stride_b, const void* beta, void* c, int c_type,
                                        int ldc, long long stride_c, int batch, int compute_type,
                                        int algorithm);

struct Library {
  // cuBLAS is two libraries. The second is opened first: the first needs it, and the loader
  // does not look beside the file that asks.
  DynamicLibrary light{"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
  DynamicLibrary library{"libcublas.so.13", "libcublas.so.12", "libcublas.so"};
  Create create = library.find<Create>("cublasCreate_v2");
  SetStream set_stream = library.find<SetStream>("cublasSetStream_v2");
  SetWorkspace set_workspace = library.find<SetWorkspace>("cublasSetWorkspace_v2");
  StatusString status_string = library.find<StatusString>("cublasGetStatusString");
  GemmStridedBatchedEx gemm = library.find<GemmStridedBatchedEx>("cublasGemmStridedBatchedEx");

  std::string why_absent() const {
    if (!library) return "cuBLAS is not here: " + library.why_absent();
    if (!create || !set_stream || !set_workspace || !status_string || !gemm) {
      return "the cuBLAS found here lacks a function that is needed; version 12 or 13 has them all";
    }
    return "";
  }

  void check(Status status, const char* what) const {
    if (status == 0) return;
    throw Error(ExitCode::wrong_result,
                std::string(what) + " failed with " + status_string(status) +
                    "; AL_LIBRARY_PATH can name the directory of another cuBLAS.");
  }
};

const Library& library() {
  static const Library instance;
  return instance;
}

// One for the process, made at the first product. Never destroyed: when static objects are, CUDA
// is already gone.
Handle handle() {
  static const Handle instance = [] {
    Handle created = nullptr;
    library().check(library().create(&created), "cublasCreate");
    return created;
  }();
  return instance;
}

int type_of(DType dtype) {
  switch (dtype) {
    case DType::fp32:
      return kReal32F;
    case DType::fp16:
      return kReal16F;
    default:  // others are refused
      return kReal16BF;
  }
}

}  // namespace

std::string why_absent() { return library().why_absent(); }

Gemm scores(const Problem& p, Units units, const void* q, const void* k, void* s) {
  return {.batch = p.batch * p.kv_heads,
          .m = p.group() * p.seq,
          .n = p.kv_seq,
          .k = p.head_dim,
          .alpha = static_cast<float>(p.scale),
          .units = units,
          .in = p.dtype,
          .out = DType::fp32,
          .a = q,
          .b = k,
          .b_transposed = true,
          .c = s};
}

Gemm pv(const Problem& p, Units units, const void* probabilities, const void* v, void* o) {
  return {.batch = p.batch * p.kv_heads,
          .m = p.group() * p.seq,
          .n = p.head_dim,
          .k = p.kv_seq,
          .alpha = 1,
          .units = units,
          .in = p.dtype,
          .out = p.dtype,
          .a = probabilities,
          .b = v,
          .b_transposed = false,
          .c = o};
}

std::string refuse(const Problem& p, Units units, const DeviceInfo& device) {
  if (units == Units::fp32 && p.dtype != DType::fp32) {
    return "cuBLAS multiplies fp16 and bf16 on the tensor cores only (cublas_tensor); this row "
           "takes --dtype fp32";
  }
  if (units == Units::tensor && device.sm < 80 && p.dtype != DType::fp16) {
    return std::string("tensor cores take ") + to_string(p.dtype) +
           " from sm_80 on, and this is sm_" + std::to_string(device.sm) + "; choose --dtype fp16";
  }
  if (std::int64_t{p.group()} * p.seq > std::numeric_limits<int>::max()) {
    return "cuBLAS counts rows in 32 bits; choose a smaller --seq";
  }
  return why_absent();
}

// cuBLAS thinks in column-major matrices, in which our buffers are the transposes: A is a
// [k, m] matrix, B [n, k] and C [n, m]. What it is asked for is therefore C^T = alpha B^T A^T,
// that is alpha op_N(its B) op_N(its A), with B first; op_T where our B is transposed already.
void gemm(const Gemm& g, void* workspace, Stream stream) {
  const Library& cublas = library();
  const float beta = 0;
  const bool tf32 = g.units == Units::tensor && g.in == DType::fp32;
  // Setting the stream forgets the workspace, so it comes first.
  cublas.check(cublas.set_stream(handle(), stream), "cublasSetStream");
  cublas.check(cublas.set_workspace(handle(), workspace, kWorkspaceBytes), "cublasSetWorkspace");
  cublas.check(
      cublas.gemm(handle(), g.b_transposed ? kOpT : kOpN, kOpN, g.n, g.m, g.k, &g.alpha, g.b,
                  type_of(g.in), g.b_transposed ? g.k : g.n, static_cast<long long>(g.n) * g.k, g.a,
                  type_of(g.in), g.k, static_cast<long long>(g.m) * g.k, &beta, g.c, type_of(g.out),
                  g.n, static_cast<long long>(g.m) * g.n, g.batch,
                  tf32 ? kCompute32FFastTF32 : kCompute32F, kDefaultAlgorithm),
      "cublasGemmStridedBatchedEx");
}

}  // namespace al::cublas
