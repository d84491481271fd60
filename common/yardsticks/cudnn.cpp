#include "common/yardsticks/cudnn.hpp"

#if __has_include(<cudnn_frontend.h>) && __has_include(<cudnn.h>)

#define NV_CUDNN_FRONTEND_USE_DYNAMIC_LOADING  // every function through cudnn_dlhandle
#define NV_CUDNN_FRONTEND_DISABLE_LOGGING
#define CUDNN_FRONTEND_SKIP_JSON_LIB
#include <cuda_runtime_api.h>
#include <cudnn_frontend.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "common/buffer.hpp"
#include "common/dynamic_library.hpp"
#include "common/error.hpp"
#include "common/yardsticks/widen.hpp"

void* cudnn_frontend::cudnn_dlhandle = nullptr;  // set when the library is opened

namespace al::cudnn {
namespace {

namespace fe = cudnn_frontend;

struct Library {
  // The front end calls the CUDA runtime by name too. Ours is linked statically, so it gets one
  // of its own, which shares the context; opened here first, because the loader then finds it.
  DynamicLibrary runtime{"libcudart.so.13", "libcudart.so.12"};
  DynamicLibrary library{"libcudnn.so.9"};
  cudnnHandle_t handle = nullptr;
  std::string why_absent;

  Library() {
    if (!library || !runtime) {
      why_absent = "cuDNN is not here: " + (library ? runtime : library).why_absent();
      return;
    }
    fe::cudnn_dlhandle = library.handle();
    if (fe::detail::create_handle(&handle) != CUDNN_STATUS_SUCCESS) {
      why_absent = "cuDNN cannot be started on this GPU (cudnnCreate failed)";
    }
  }
};

// One for the process, and never destroyed: when static objects are, CUDA is already gone.
const Library& library() {
  static const Library& instance = *new Library;
  return instance;
}

// The tensors' names in a plan.
enum Uid : std::int64_t {
  kQ = 1,
  kK,
  kV,
  kO,
  kLse,
  kQueries,
  kKeys,
  kPages,
  // Of 8 bits: the factors of Q, K and V, those of P and O, and the largest P and O that it met.
  kDescaleQ,
  kDescaleK,
  kDescaleV,
  kScaleP,
  kDescaleP,
  kScaleO,
  kMaxP,
  kMaxO
};

// cuDNN compiles a kernel for each problem; here it is, or why there is none.
struct Plan {
  Problem problem;
  fe::graph::Graph graph;
  // How many queries each sequence has, and keys where the problem does not say: [B] int.
  DeviceBuffer queries, keys;
  // Of 8 bits: 1, what P is multiplied by, and its inverse, and room for the two largest.
  DeviceBuffer factors;
  std::int64_t workspace = 0;
  std::string why_not;

  explicit Plan(const Problem& p) : problem(p) {
    try {
      const fe::error_t error = build();
      if (error.is_bad()) why_not = name() + " declines: " + error.err_msg;
    } catch (const std::exception& error) {  // a function that this cuDNN does not have
      why_not = name() + " declines: " + error.what();
    }
  }

  bool has_lengths() const { return !problem.kv_len.empty() || problem.page_size > 0; }

 private:
  DeviceBuffer on_every_sequence(int length) const {
    const std::vector<int> lengths(problem.batch, length);
    DeviceBuffer buffer(lengths.size() * sizeof(int), "lengths");
    buffer.write(lengths.data(), buffer.size());
    return buffer;
  }

  // A contiguous tensor [batch, heads, rows, columns].
  static fe::graph::Tensor_attributes tensor(Uid uid, std::int64_t batch, std::int64_t heads,
                                             std::int64_t rows, std::int64_t columns) {
    return fe::graph::Tensor_attributes()
        .set_uid(uid)
        .set_dim({batch, heads, rows, columns})
        .set_stride({heads * rows * columns, rows * columns, columns, 1});
  }

  static void like(const std::shared_ptr<fe::graph::Tensor_attributes>& t,
                   const fe::graph::Tensor_attributes& shape, Uid uid) {
    t->set_output(true).set_uid(uid).set_dim(shape.get_dim()).set_stride(shape.get_stride());
  }

  // O comes in 8 bits too, in units of V's factor: its rows are means of V's, so they fit.
  fe::error_t build_fp8() {
    const Problem& p = problem;
    graph.set_io_data_type(fe::DataType_t::FP8_E4M3)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    const auto like_q = tensor(kQ, p.batch, p.heads, p.seq, p.head_dim);
    const auto like_k = tensor(kK, p.batch, p.kv_heads, p.kv_seq, p.head_dim);
    const auto q = graph.tensor(like_q), k = graph.tensor(like_k),
               v = graph.tensor(fe::graph::Tensor_attributes(like_k).set_uid(kV));
    const auto number = [&](Uid uid) {
      return graph.tensor(tensor(uid, 1, 1, 1, 1).set_data_type(fe::DataType_t::FLOAT));
    };
    fe::graph::SDPA_fp8_attributes options;
    options.set_attn_scale(static_cast<float>(p.scale)).set_generate_stats(true);
    if (p.causal && p.seq > 1) {  // as below: a single query sees every key
      options.set_diagonal_band_right_bound(0).set_diagonal_alignment(
          p.seq == p.kv_seq ? fe::DiagonalAlignment_t::TOP_LEFT
                            : fe::DiagonalAlignment_t::BOTTOM_RIGHT);
    }
    const auto [o, lse, max_p, max_o] =
        graph.sdpa_fp8(q, k, v, number(kDescaleQ), number(kDescaleK), number(kDescaleV),
                       number(kDescaleP), number(kScaleP), number(kScaleO), options);
    like(o, like_q, kO);
    like(lse, tensor(kLse, p.batch, p.heads, p.seq, 1).set_data_type(fe::DataType_t::FLOAT), kLse);
    like(max_p, tensor(kMaxP, 1, 1, 1, 1), kMaxP);
    like(max_o, tensor(kMaxO, 1, 1, 1, 1), kMaxO);
    for (const auto& t : {lse, max_p, max_o}) t->set_data_type(fe::DataType_t::FLOAT);

    const float values[] = {1, 256, 1 / 256.0f, 0, 0};  // P lies in [0, 1], e4m3 reaches to 448
    factors = DeviceBuffer(sizeof values, "factors");
    factors.write(values, sizeof values);
    return graph.build(library().handle, {fe::HeurMode_t::A});
  }

  fe::error_t build() {
    const fe::error_t error = is_fp8(problem.dtype) ? build_fp8() : build_fp16();
    return error.is_bad() ? error : graph.get_workspace_size(workspace);
  }

  fe::error_t build_fp16() {
    const Problem& p = problem;
    graph.set_io_data_type(p.dtype == DType::fp16 ? fe::DataType_t::HALF : fe::DataType_t::BFLOAT16)
        .set_intermediate_data_type(fe::DataType_t::FLOAT)
        .set_compute_data_type(fe::DataType_t::FLOAT);
    const auto like_q = tensor(kQ, p.batch, p.heads, p.seq, p.head_dim);
    const int page = p.page_size > 0 ? p.page_size : p.kv_seq;  // one a sequence
    const std::int64_t pages = p.cache_elements() / (std::int64_t{p.kv_heads} * page * p.head_dim);
    const auto like_k = tensor(kK, pages, p.kv_heads, page, p.head_dim);
    auto q = graph.tensor(like_q);
    auto k = graph.tensor(like_k);
    auto v = graph.tensor(fe::graph::Tensor_attributes(like_k).set_uid(kV));

    fe::graph::SDPA_attributes options;
    options.set_attn_scale(static_cast<float>(p.scale)).set_generate_stats(true);
    if (p.causal && p.seq > 1) {  // a single query sees every key either way
      // For Nq = Nkv the two are one mask, and cuDNN is up to 6 % faster when asked for top-left.
      options.set_diagonal_band_right_bound(0).set_diagonal_alignment(
          p.seq == p.kv_seq ? fe::DiagonalAlignment_t::TOP_LEFT
                            : fe::DiagonalAlignment_t::BOTTOM_RIGHT);
    }
    if (has_lengths()) {
      queries = on_every_sequence(p.seq);
      keys = on_every_sequence(p.kv_seq);
      const auto lengths = [&](Uid uid) {
        return graph.tensor(tensor(uid, p.batch, 1, 1, 1).set_data_type(fe::DataType_t::INT32));
      };
      options.set_padding_mask(true)
          .set_seq_len_q(lengths(kQueries))
          .set_seq_len_kv(lengths(kKeys));
    }
    if (p.page_size > 0) {
      const auto table = graph.tensor(
          tensor(kPages, p.batch, 1, p.max_pages(), 1).set_data_type(fe::DataType_t::INT32));
      options.set_paged_attention_k_table(table)
          .set_paged_attention_v_table(table)
          .set_paged_attention_max_seq_len_kv(p.kv_seq);
    }
    const auto [o, lse] = graph.sdpa(q, k, v, options);
    like(o, like_q, kO);
    like(lse, tensor(kLse, p.batch, p.heads, p.seq, 1), kLse);
    lse->set_data_type(fe::DataType_t::FLOAT);
    return graph.build(library().handle, {fe::HeurMode_t::A});
  }
};

const Plan& plan_for(const Problem& problem) {
  static auto& plans = *new std::vector<std::unique_ptr<Plan>>;
  for (const auto& plan : plans) {
    if (plan->problem == problem) return *plan;
  }
  return *plans.emplace_back(std::make_unique<Plan>(problem));
}

}  // namespace

std::string name() {
  if (!library().why_absent.empty()) return "cuDNN";
  const std::size_t version = fe::detail::get_backend_version();  // 91900
  return "cuDNN " + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) +
         "." + std::to_string(version % 100);
}

std::string refuse(const Problem& p, const DeviceInfo& device) {
  if (p.dtype != DType::fp16 && p.dtype != DType::bf16 && p.dtype != DType::e4m3) {
    return "cuDNN's fused attention takes --dtype fp16, bf16 or e4m3";
  }
  if (is_fp8(p.dtype) && !p.one_factor) {
    return "of 8 bits cuDNN takes one factor for all heads of a tensor: --one-factor";
  }
  if (is_fp8(p.dtype) && (!p.kv_len.empty() || p.page_size > 0)) {
    return "of 8 bits cuDNN is asked for whole caches of one length only";
  }
  if (device.sm < 80) return "cuDNN's fused attention needs sm_80 or newer";
  if (p.causal && p.seq > p.kv_seq) {
    return "cuDNN's causal mask wants at least as many keys as queries";
  }
  if (std::ranges::count(p.kv_len, 0) > 0) return "cuDNN wants a key in each sequence";
  if (p.seq > 1 && (!p.kv_len.empty() || p.page_size > 0)) {
    return "with several queries and lengths or pages cuDNN (9.14, 9.19) lets NaN behind a "
           "sequence's last key into the result";
  }
  if (!library().why_absent.empty()) return library().why_absent;
  return plan_for(p).why_not;
}

namespace {

// O of 8 bits lies in front of what cuDNN asks for.
std::size_t o8_bytes(const Problem& p) {
  return is_fp8(p.dtype) ? (p.q_elements() + 255) / 256 * 256 : 0;
}

}  // namespace

std::size_t workspace(const Problem& p) { return o8_bytes(p) + plan_for(p).workspace; }

void attention(const Problem& problem, const Arguments& a, Stream stream) {
  const Plan& plan = plan_for(problem);
  std::unordered_map<std::int64_t, void*> pointers{{kQ, const_cast<void*>(a.q)},
                                                   {kK, const_cast<void*>(a.k)},
                                                   {kV, const_cast<void*>(a.v)},
                                                   {kO, a.out},
                                                   {kLse, a.lse}};
  if (plan.has_lengths()) {
    pointers[kQueries] = plan.queries.data();
    pointers[kKeys] = a.kv_len ? const_cast<int*>(a.kv_len) : plan.keys.data();
  }
  if (problem.page_size > 0) pointers[kPages] = const_cast<int*>(a.page_table);
  if (is_fp8(problem.dtype)) {
    auto* factors = static_cast<float*>(plan.factors.data());
    pointers[kO] = a.workspace;
    pointers[kDescaleQ] = const_cast<float*>(a.q_scale);
    pointers[kDescaleK] = const_cast<float*>(a.k_scale);
    pointers[kDescaleV] = pointers[kScaleO] = factors;
    pointers[kScaleP] = factors + 1;
    pointers[kDescaleP] = factors + 2;
    pointers[kMaxP] = factors + 3;
    pointers[kMaxO] = factors + 4;
  }
  fe::error_t error = {fe::error_code_t::HANDLE_ERROR, "cudnnSetStream failed"};
  if (fe::detail::set_stream(library().handle, stream) == CUDNN_STATUS_SUCCESS) {
    error = plan.graph.execute(library().handle, pointers,
                               static_cast<std::byte*>(a.workspace) + o8_bytes(problem));
  }
  if (error.is_bad()) {
    throw Error(ExitCode::wrong_result, name() + " failed: " + error.err_msg + ".");
  }
}

void widen_O(const Problem& p, const Arguments& a, Stream stream) {
  if (is_fp8(p.dtype)) widen_heads(p, a.workspace, a.v_scale, a.out, stream);
}

}  // namespace al::cudnn

#else  // built where cuDNN's headers were not

namespace al::cudnn {

std::string name() { return "cuDNN"; }

std::string refuse(const Problem&, const DeviceInfo&) {
  return "this program was built without cuDNN's headers; 'make ladder' installs them on a machine "
         "with a GPU, and 'make clean' before it has everything built anew";
}

std::size_t workspace(const Problem&) { return 0; }

void attention(const Problem&, const Arguments&, Stream) {}

void widen_O(const Problem&, const Arguments&, Stream) {}

}  // namespace al::cudnn

#endif
