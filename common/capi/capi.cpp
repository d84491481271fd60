// The C interface: checks what a C caller hands over, and turns exceptions into status codes.
#include "common/capi/attention_ladder.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "common/error.hpp"
#include "common/stages.hpp"

#ifdef AL_EMULATOR
#include "common/emulator/launch.hpp"
#endif

namespace al {
namespace {

thread_local std::string last_error;

// The command line's words for a problem's sizes, "--head-dim 63", as the fields of the struct.
std::string in_terms_of_the_struct(const std::string& message) {
  std::string text;
  bool option = false;
  for (std::size_t i = 0; i < message.size(); ++i) {
    if (message.compare(i, 2, "--") == 0) {
      option = true;
      ++i;
    } else {
      option = option && message[i] != ' ';
      text += option && message[i] == '-' ? '_' : message[i];
    }
  }
  return text;
}

static_assert(static_cast<int>(ExitCode::wrong_result) == AL_DEVICE_FAULT &&
              static_cast<int>(ExitCode::usage) == AL_UNSUPPORTED &&
              static_cast<int>(ExitCode::no_device) == AL_NO_DEVICE);

// Runs `body` and turns whatever it throws into a status and a text.
template <typename Body>
al_status guarded(const Body& body) noexcept {
  try {
    body();
    return AL_OK;
  } catch (const Error& error) {
    const bool usage = error.code == ExitCode::usage;
    last_error = usage ? in_terms_of_the_struct(error.what()) : error.what();
    return static_cast<al_status>(error.code);
  } catch (const std::exception& error) {
    last_error = error.what();
    return AL_DEVICE_FAULT;
  }
}

void require(const void* pointer, const char* name) {
  if (pointer == nullptr) throw usage_error(fmt::format("{} must not be NULL.", name));
}

void require_aligned(const void* pointer, const char* name, std::uintptr_t alignment) {
  if (reinterpret_cast<std::uintptr_t>(pointer) % alignment != 0) {
    throw usage_error(fmt::format("{} must be {}-byte aligned.", name, alignment));
  }
}

const Stage& stage_at(std::int32_t index) {
  const auto stages = all_stages();
  if (index < 0 || index >= std::ssize(stages)) {
    throw usage_error(
        fmt::format("There is no stage {}: there are {}, counted from 0.", index, stages.size()));
  }
  return *stages[index];
}

const Stage& find_stage(const char* name) {
  require(name, "stage");
  std::string known;
  for (const Stage* stage : all_stages()) {
    if (std::strcmp(name, stage->name) == 0) return *stage;
    if (!known.empty()) known += ", ";
    known += stage->name;
  }
  throw usage_error(fmt::format("There is no stage '{}': choose {}.", name, known));
}

// The caller's struct, with what an older one lacks set to zero.
al_arguments read(const al_arguments* given) {
  require(given, "arguments");
  constexpr std::size_t kSmallest = offsetof(al_arguments, q_strides);  // all it cannot do without
  const std::size_t size = given->struct_size;
  if (size < kSmallest || size > sizeof(al_arguments)) {
    throw usage_error(
        fmt::format("struct_size {} is not possible: set it to sizeof(al_arguments), which is {} "
                    "in version {}.",
                    size, sizeof(al_arguments), AL_VERSION));
  }
  al_arguments arguments = {};
  std::memcpy(&arguments, given, size);
  return arguments;
}

DType dtype_of(std::int32_t dtype) {
  switch (dtype) {
    case AL_FP16:
      return DType::fp16;
    case AL_BF16:
      return DType::bf16;
    case AL_FP32:
      return DType::fp32;
    case AL_E4M3:
      return DType::e4m3;
    case AL_E5M2:
      return DType::e5m2;
  }
  throw usage_error(fmt::format(
      "dtype {} is not known: choose AL_FP16 (1), AL_BF16 (2), AL_FP32 (3), AL_E4M3 (4) "
      "or AL_E5M2 (5).",
      dtype));
}

// `shape` is batch, heads, rows, columns. A stride along a size of 1 is never used.
void require_contiguous(const char* name, const std::array<std::int64_t, 4>& shape,
                        const std::int64_t (&strides)[3]) {
  std::int64_t expected = 1;
  for (int i = 2; i >= 0; --i) {
    expected *= shape[i + 1];
    if (strides[i] != 0 && strides[i] != expected && shape[i] != 1) {
      throw usage_error(fmt::format(
          "{}[{}] is {}, but this stage takes contiguous tensors only: it must be {} or 0.", name,
          i, strides[i], expected));
    }
  }
}

// One call's stage, problem and variant, all checked.
struct Request {
  al_arguments a;
  const Stage& stage;
  Problem problem;
  const Variant* variant;

  Request(const char* stage_name, const char* variant_name, const al_arguments* given)
      : a(read(given)), stage(find_stage(stage_name)), problem(problem_of(a, stage)) {
    validate(problem);
    if (variant_name == nullptr || std::strcmp(variant_name, "best") == 0) {
      variant = &stage.variants[stage.best(problem, device())];
    } else {
      variant = &find_variant(stage, variant_name);
    }
    if (problem.operation != variant->operation) {
      problem.operation = variant->operation;
      validate(problem);
    }
    const std::string why = refusal(*variant, problem, device());
    if (!why.empty()) {
      throw usage_error(fmt::format("{} cannot run {}: {}.", name(), to_string(problem), why));
    }
    check_fields();
  }

  std::string name() const { return fmt::format("{} {}", stage.name, variant->name); }

  std::size_t workspace_bytes() const {
    return variant->workspace ? variant->workspace(problem) : 0;
  }

 private:
  static Problem problem_of(const al_arguments& a, const Stage& stage) {
    return {.operation = stage.operation,
            .batch = a.batch,
            .heads = a.heads,
            .kv_heads = a.kv_heads,
            .seq = a.seq,
            .kv_seq = a.kv_seq,
            .head_dim = a.head_dim,
            .dtype = dtype_of(a.dtype),
            .kv_dtype = a.kv_dtype == 0 ? std::nullopt : std::optional(dtype_of(a.kv_dtype)),
            .causal = a.causal != 0,
            .scale = std::isnan(a.scale) && a.head_dim > 0 ? 1 / std::sqrt(a.head_dim) : a.scale,
            // The lengths are on the device, and nobody waits for it here: at most kv_seq each.
            .kv_len = std::vector<int>(a.kv_len && a.batch > 0 ? a.batch : 0, a.kv_seq),
            .page_size = a.page_size};
  }

  void check_fields() const {
    const struct {
      const char* name;
      bool set, of_8_bits;
    } scales[] = {{"q_scale", a.q_scale != nullptr, is_fp8(problem.dtype)},
                  {"k_scale", a.k_scale != nullptr, is_fp8(problem.cache_dtype())},
                  {"v_scale", a.v_scale != nullptr, is_fp8(problem.cache_dtype())}};
    for (const auto& [field, set, of_8_bits] : scales) {
      if (set && !of_8_bits) {
        throw usage_error(
            fmt::format("{} is for elements of 8 bits only: it must be NULL.", field));
      }
    }
    const bool pages = a.page_size > 0;
    if (!pages && (a.page_table != nullptr || a.max_pages != 0)) {
      throw usage_error("page_table and max_pages need a page_size, which is 0.");
    }
    if (pages && a.max_pages < problem.max_pages()) {
      throw usage_error(fmt::format("max_pages {} is too small: {} keys take {} pages of {}.",
                                    a.max_pages, a.kv_seq, problem.max_pages(), a.page_size));
    }
    const Operation operation = problem.operation;
    const bool has_lse = operation == Operation::softmax || operation == Operation::attention;
    const struct {
      const char* name;
      bool set, used;
    } tensors[] = {{"q", a.q != nullptr, reads(operation, Tensor::q)},
                   {"k", a.k != nullptr, reads(operation, Tensor::k)},
                   {"v", a.v != nullptr, reads(operation, Tensor::v)},
                   {"s", a.s != nullptr, reads(operation, Tensor::s)},
                   {"p", a.p != nullptr, reads(operation, Tensor::p)},
                   {"lse", a.lse != nullptr, has_lse}};
    for (const auto& [tensor, set, used] : tensors) {
      if (set && !used) {
        throw usage_error(fmt::format("{} computes {} and has no {}: it must be NULL.", name(),
                                      to_string(operation), tensor));
      }
    }
    const Problem& p = problem;
    const std::array<std::int64_t, 4> like_q{p.batch, p.heads, p.seq, p.head_dim};
    const std::array<std::int64_t, 4> like_k{p.batch, p.kv_heads, p.kv_seq, p.head_dim};
    const std::array<std::int64_t, 4> like_out{p.batch, p.heads, p.seq, p.out_columns()};
    if (reads(operation, Tensor::q)) require_contiguous("q_strides", like_q, a.q_strides);
    const std::array<std::int64_t, 4> cache =
        pages ? std::array<std::int64_t, 4>{2, p.kv_heads, p.page_size, p.head_dim} : like_k;
    if (reads(operation, Tensor::k)) require_contiguous("k_strides", cache, a.k_strides);
    if (reads(operation, Tensor::v)) require_contiguous("v_strides", cache, a.v_strides);
    require_contiguous("o_strides", like_out, a.o_strides);
  }
};

#ifdef AL_EMULATOR
// For the length of a run the emulator knows the caller's tensors, so that an access beside them
// is found. One run at a time: its counters and its memory map are the process's.
class EmulatedMemory {
 public:
  EmulatedMemory(const Problem& p, const Arguments& a, std::size_t workspace_bytes) {
    const std::size_t kv_bytes = cache_elements(p, a) * bytes_of(p.cache_dtype());
    add(a.q, p.q_elements() * bytes_of(p.dtype), "q", true);
    add(a.k, kv_bytes, "k", true);
    add(a.v, kv_bytes, "v", true);
    add(a.s, p.score_elements() * bytes_of(p.score_dtype()), "s", true);
    add(a.p, p.score_elements() * bytes_of(p.dtype), "p", true);
    add(a.out, p.out_bytes(), "o", false);
    add(a.lse, p.q_rows() * sizeof(float), "lse", false);
    add(a.workspace, workspace_bytes, "workspace", true);
    add(a.q_scale, p.heads * sizeof(float), "q_scale", true);
    add(a.k_scale, p.kv_heads * sizeof(float), "k_scale", true);
    add(a.v_scale, p.kv_heads * sizeof(float), "v_scale", true);
    add(a.kv_len, p.batch * sizeof(int), "kv_len", true);
    add(a.page_table, std::size_t(p.batch) * a.max_pages * sizeof(int), "page_table", true);
  }
  ~EmulatedMemory() {
    for (int i = 0; i < count_; ++i) emulator::unregister_global(known_[i]);
  }
  EmulatedMemory(const EmulatedMemory&) = delete;
  EmulatedMemory& operator=(const EmulatedMemory&) = delete;

 private:
  // The highest page that the table names is the last that is known to be there.
  static std::int64_t cache_elements(const Problem& p, const Arguments& a) {
    if (p.page_size == 0) return p.kv_elements();
    const std::size_t entries = std::size_t(p.batch) * a.max_pages;
    const int last = std::max(-1, *std::max_element(a.page_table, a.page_table + entries));
    return (std::int64_t{last} + 1) * p.kv_heads * p.page_size * p.head_dim;
  }
  void add(const void* data, std::size_t bytes, const char* name, bool written) {
    if (data == nullptr || bytes == 0) return;
    void* memory = const_cast<void*>(data);  // the emulator only notes where it is
    emulator::register_global(memory, bytes, name);
    known_[count_++] = memory;
    if (written) emulator::note_written(memory, bytes);
  }

  static inline std::mutex one_run_;
  std::lock_guard<std::mutex> lock_{one_run_};
  std::array<void*, 13> known_;
  int count_ = 0;
};
#endif

void run(const Request& request, Stream stream) {
  const al_arguments& a = request.a;
  const Operation operation = request.problem.operation;
  const bool fp8_q = is_fp8(request.problem.dtype), fp8_kv = is_fp8(request.problem.cache_dtype());
  if (fp8_q) require(a.q_scale, "q_scale");
  if (fp8_kv) require(a.k_scale, "k_scale"), require(a.v_scale, "v_scale");
  if (a.page_size > 0) require(a.page_table, "page_table");
  const struct {
    const void* data;
    const char* name;
    bool needed;
  } tensors[] = {{a.q, "q", reads(operation, Tensor::q)},
                 {a.k, "k", reads(operation, Tensor::k)},
                 {a.v, "v", reads(operation, Tensor::v)},
                 {a.s, "s", reads(operation, Tensor::s)},
                 {a.p, "p", reads(operation, Tensor::p)},
                 {a.o, "o", true},
                 {a.lse, "lse", false}};
  for (const auto& [data, name, needed] : tensors) {
    if (needed) require(data, name);
    require_aligned(data, name, 16);
  }
  const std::size_t workspace_bytes = request.workspace_bytes();
  if (workspace_bytes > 0) {
    if (a.workspace == nullptr || a.workspace_bytes < workspace_bytes) {
      throw usage_error(fmt::format("{} needs a workspace of {} bytes, and was given {}.",
                                    request.name(), workspace_bytes,
                                    a.workspace == nullptr ? 0 : a.workspace_bytes));
    }
    require_aligned(a.workspace, "workspace", 256);
  }

  const Arguments arguments{.q = a.q,
                            .k = a.k,
                            .v = a.v,
                            .s = a.s,
                            .p = a.p,
                            .out = a.o,
                            .lse = a.lse,
                            .workspace = workspace_bytes > 0 ? a.workspace : nullptr,
                            .q_scale = a.q_scale,
                            .k_scale = a.k_scale,
                            .v_scale = a.v_scale,
                            .kv_len = a.kv_len,
                            .page_table = a.page_table,
                            .max_pages = a.max_pages};
#ifdef AL_EMULATOR
  const EmulatedMemory memory(request.problem, arguments, workspace_bytes);
#endif
  request.variant->launch(request.problem, arguments, stream);
}

}  // namespace
}  // namespace al

using namespace al;

al_status al_version(int32_t* version) {
  return guarded([&] {
    require(version, "version");
    *version = AL_VERSION;
  });
}

al_status al_backend(const char** backend) {
  return guarded([&] {
    require(backend, "backend");
#ifdef AL_EMULATOR
    *backend = "emulator";
#else
    *backend = "cuda";
#endif
  });
}

al_status al_stage_count(int32_t* count) {
  return guarded([&] {
    require(count, "count");
    *count = static_cast<int32_t>(all_stages().size());
  });
}

al_status al_stage_name(int32_t index, const char** name) {
  return guarded([&] {
    require(name, "name");
    *name = stage_at(index).name;
  });
}

al_status al_stage_title(int32_t index, const char** title) {
  return guarded([&] {
    require(title, "title");
    *title = stage_at(index).title;
  });
}

al_status al_variant_count(const char* stage, int32_t* count) {
  return guarded([&] {
    require(count, "count");
    *count = static_cast<int32_t>(find_stage(stage).variants.size());
  });
}

al_status al_variant_name(const char* stage, int32_t index, const char** name) {
  return guarded([&] {
    require(name, "name");
    const Stage& found = find_stage(stage);
    if (index < 0 || index >= std::ssize(found.variants)) {
      throw usage_error(fmt::format("{} has no variant {}: it has {}, counted from 0.", found.name,
                                    index, found.variants.size()));
    }
    *name = found.variants[index].name;
  });
}

al_status al_best_variant(const char* stage, const al_arguments* arguments, const char** name) {
  return guarded([&] {
    require(name, "name");
    *name = Request(stage, nullptr, arguments).variant->name;
  });
}

al_status al_supports(const char* stage, const char* variant, const al_arguments* arguments) {
  return guarded([&] { Request(stage, variant, arguments); });
}

al_status al_workspace_bytes(const char* stage, const char* variant, const al_arguments* arguments,
                             size_t* bytes) {
  return guarded([&] {
    require(bytes, "bytes");
    *bytes = Request(stage, variant, arguments).workspace_bytes();
  });
}

al_status al_run(const char* stage, const char* variant, const al_arguments* arguments,
                 void* stream) {
  return guarded([&] { run(Request(stage, variant, arguments), static_cast<Stream>(stream)); });
}

const char* al_last_error(void) { return last_error.c_str(); }
