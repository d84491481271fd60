#include "common/yardsticks/cublaslt.hpp"

#include <cstdint>

#include "common/dynamic_library.hpp"
#include "common/error.hpp"

namespace al::cublaslt {
namespace {

// The part of cuBLASLt's C interface that is used, with the numbers of its header.
struct Context;
struct Description;
struct Layout;
using Status = int;                                        // 0: success
constexpr int kReal32F = 0, kReal16F = 2, kRealE4M3 = 28;  // CUDA_R_*
constexpr int kCompute32F = 68;                            // CUBLAS_COMPUTE_32F
constexpr std::int32_t kOpT = 1;                           // CUBLAS_OP_T
constexpr int kTransposeA = 3, kFastAccumulation = 25;     // CUBLASLT_MATMUL_DESC_*

using Create = Status (*)(Context**);
using CreateDescription = Status (*)(Description**, int compute_type, int scale_type);
using SetAttribute = Status (*)(Description*, int attribute, const void* value, std::size_t bytes);
using CreateLayout = Status (*)(Layout**, int type, std::uint64_t rows, std::uint64_t columns,
                                std::int64_t leading);
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
  Matmul matmul = library.find<Matmul>("cublasLtMatmul");

  std::string why_absent() const {
    if (!library) return "cuBLASLt is not here: " + library.why_absent();
    if (!create || !create_description || !set_attribute || !create_layout || !matmul) {
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

// What describes one size of product. Never destroyed: when static objects are, CUDA is gone.
struct Product {
  int size;
  Context* context = nullptr;
  Description* description = nullptr;
  Layout *operand = nullptr, *result = nullptr;

  explicit Product(int n) : size(n) {
    const Library& lt = library();
    check(lt.create(&context), "cublasLtCreate");
    check(lt.create_description(&description, kCompute32F, kReal32F), "cublasLtMatmulDescCreate");
    // Without it the library adds up in registers of its own, between shorter runs of the tensor
    // cores: more precise, and not what the hardware can do at the most.
    const std::int8_t fast = 1;
    check(lt.set_attribute(description, kFastAccumulation, &fast, sizeof fast), "cuBLASLt");
    check(lt.set_attribute(description, kTransposeA, &kOpT, sizeof kOpT), "cuBLASLt");
    check(lt.create_layout(&operand, kRealE4M3, n, n, n), "cublasLtMatrixLayoutCreate");
    check(lt.create_layout(&result, kReal16F, n, n, n), "cublasLtMatrixLayoutCreate");
  }
};

}  // namespace

std::string why_absent() { return library().why_absent(); }

// cuBLASLt thinks in column-major matrices, in which our buffers are the transposes. It is asked
// for C^T = B A^T, its A being our B: op_T of what it sees as B^T.
void multiply_e4m3(int size, const void* a, const void* b, void* c, void* workspace,
                   std::size_t workspace_bytes, Stream stream) {
  static const Product& product = *new Product(size);
  if (product.size != size) throw Error(ExitCode::wrong_result, "multiply_e4m3 knows one size.");
  const float one = 1, zero = 0;
  check(library().matmul(product.context, product.description, &one, b, product.operand, a,
                         product.operand, &zero, c, product.result, c, product.result, nullptr,
                         workspace, workspace_bytes, stream),
        "cublasLtMatmul");
}

}  // namespace al::cublaslt
