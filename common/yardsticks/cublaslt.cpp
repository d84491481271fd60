#include "common/yardsticks/cublaslt.hpp"

#include "common/dynamic_library.hpp"
#include "common/error.hpp"

namespace al::cublaslt {
namespace {

// The part of cuBLASLt's C interface that is used, with the numbers of its header.
struct Preference;
using Status = int;                                        // 0: success
constexpr int kReal32F = 0, kReal16F = 2, kRealE4M3 = 28;  // CUDA_R_*
constexpr int kCompute32F = 68;                            // CUBLAS_COMPUTE_32F
constexpr std::int32_t kOpT = 1;                           // CUBLAS_OP_T
constexpr int kTransposeA = 3, kFastAccumulation = 25;     // CUBLASLT_MATMUL_DESC_*
constexpr int kMaxWorkspaceBytes = 1;                      // CUBLASLT_MATMUL_PREF_*

struct Heuristic {
  std::array<std::uint64_t, 8> algorithm;
  std::size_t workspace_bytes;
  Status state;
  float waves;
  int reserved[4];
};

using Create = Status (*)(Context**);
using CreateDescription = Status (*)(Description**, int compute_type, int scale_type);
using SetAttribute = Status (*)(Description*, int attribute, const void* value, std::size_t bytes);
using CreateLayout = Status (*)(Layout**, int type, std::uint64_t rows, std::uint64_t columns,
                                std::int64_t leading);
using CreatePreference = Status (*)(Preference**);
using SetPreference = Status (*)(Preference*, int attribute, const void* value, std::size_t bytes);
using GetHeuristics = Status (*)(Context*, Description*, Layout* a, Layout* b, Layout* c, Layout* d,
                                 Preference*, int wanted, Heuristic* found, int* count);
using Matmul = Status (*)(Context*, Description*, const void* alpha, const void* a,
                          Layout* a_layout, const void* b, Layout* b_layout, const void* beta,
                          const void* c, Layout* c_layout, void* d, Layout* d_layout,
                          const void* algorithm, void* workspace, std::size_t workspace_bytes,
                          Stream stream);

struct Library {
  DynamicLibrary library{"libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"};
  Create create = library.find<Create>("cublasLtCreate");
  CreateDescription create_description =
      library.find<CreateDescription>("cublasLtMatmulDescCreate");
  SetAttribute set_attribute = library.find<SetAttribute>("cublasLtMatmulDescSetAttribute");
  CreateLayout create_layout = library.find<CreateLayout>("cublasLtMatrixLayoutCreate");
  CreatePreference create_preference =
      library.find<CreatePreference>("cublasLtMatmulPreferenceCreate");
  SetPreference set_preference =
      library.find<SetPreference>("cublasLtMatmulPreferenceSetAttribute");
  GetHeuristics get_heuristics = library.find<GetHeuristics>("cublasLtMatmulAlgoGetHeuristic");
  Matmul matmul = library.find<Matmul>("cublasLtMatmul");

  std::string why_absent() const {
    if (!library) return "cuBLASLt is not here: " + library.why_absent();
    if (!create || !create_description || !set_attribute || !create_layout || !create_preference ||
        !set_preference || !get_heuristics || !matmul) {
      return "the cuBLASLt found here lacks a function that is needed";
    }
    return "";
  }
};

const Library& library() {
  static const Library instance;
  return instance;
}

void check(Status status, const char* what) {
  if (status == 0) return;
  throw Error(ExitCode::wrong_result,
              std::string(what) + " failed with status " + std::to_string(status) +
                  "; AL_LIBRARY_PATH can name the directory of another cuBLAS.");
}

}  // namespace

std::string why_absent() { return library().why_absent(); }

ProductE4m3::ProductE4m3(int size, std::size_t workspace_bytes)
    : workspace_bytes_(workspace_bytes) {
  const Library& lt = library();
  check(lt.create(&context_), "cublasLtCreate");
  check(lt.create_description(&description_, kCompute32F, kReal32F), "cublasLtMatmulDescCreate");
  // Without it the library adds up in registers of its own, between shorter runs of the tensor
  // cores: more precise, and not what the hardware can do at the most.
  const std::int8_t fast = 1;
  check(lt.set_attribute(description_, kFastAccumulation, &fast, sizeof fast), "cuBLASLt");
  check(lt.set_attribute(description_, kTransposeA, &kOpT, sizeof kOpT), "cuBLASLt");
  check(lt.create_layout(&operand_, kRealE4M3, size, size, size), "cublasLtMatrixLayoutCreate");
  check(lt.create_layout(&result_, kReal16F, size, size, size), "cublasLtMatrixLayoutCreate");

  Preference* preference = nullptr;
  check(lt.create_preference(&preference), "cublasLtMatmulPreferenceCreate");
  check(lt.set_preference(preference, kMaxWorkspaceBytes, &workspace_bytes, sizeof workspace_bytes),
        "cuBLASLt");
  Heuristic found[8];
  int count = 0;
  check(lt.get_heuristics(context_, description_, operand_, operand_, result_, result_, preference,
                          8, found, &count),
        "cublasLtMatmulAlgoGetHeuristic");
  for (int i = 0; i < count; ++i) {
    if (found[i].state == 0) algorithms_.push_back(found[i].algorithm);
  }
}

// cuBLASLt thinks in column-major matrices, in which our buffers are the transposes. It is asked
// for C^T = B A^T, its A being our B: op_T of what it sees as B^T.
void ProductE4m3::enqueue(int algorithm, const void* a, const void* b, void* c, void* workspace,
                          Stream stream) const {
  const float one = 1, zero = 0;
  check(library().matmul(context_, description_, &one, b, operand_, a, operand_, &zero, c, result_,
                         c, result_, &algorithms_[algorithm], workspace, workspace_bytes_, stream),
        "cublasLtMatmul");
}

}  // namespace al::cublaslt
