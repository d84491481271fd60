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
enum Uid : std::int64_t { kQ = 1, kK, kV, kO, kLse, kQueries, kKeys, kPages };

// cuDNN compiles a kernel for each problem; here it is, or why there is none.
struct Plan {
  Problem problem;
  fe::graph::Graph graph;
  // How many queries each sequence has, and keys where the problem does not say: [B] int.
  DeviceBuffer queries, keys;
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

  fe::error_t build() {
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
    o->set_output(true).set_uid(kO).set_dim(like_q.get_dim()).set_stride(like_q.get_stride());
    const auto like_lse = tensor(kLse, p.batch, p.heads, p.seq, 1);
    lse->set_output(true)
        .set_uid(kLse)
        .set_dim(like_lse.get_dim())
        .set_stride(like_lse.get_stride())
        .set_data_type(fe::DataType_t::FLOAT);

    const fe::error_t error = graph.build(library().handle, {fe::HeurMode_t::A});
    return error.is_bad() ? error : graph.get_workspace_size(workspace);
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
  if (p.dtype != DType::fp16 && p.dtype != DType::bf16) {
    return "cuDNN's fused attention takes --dtype fp16 or bf16";
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

std::size_t workspace(const Problem& problem) { return plan_for(problem).workspace; }

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
  fe::error_t error = {fe::error_code_t::HANDLE_ERROR, "cudnnSetStream failed"};
  if (fe::detail::set_stream(library().handle, stream) == CUDNN_STATUS_SUCCESS) {
    error = plan.graph.execute(library().handle, pointers, a.workspace);
  }
  if (error.is_bad()) {
    throw Error(ExitCode::wrong_result, name() + " failed: " + error.err_msg + ".");
  }
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

}  // namespace al::cudnn

#endif
