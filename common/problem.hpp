// The problem every chapter solves: its shape, its arithmetic and what it costs at the least.
//
//   O = softmax(scale * Q K^T) V     Q [B, Hq, Nq, D]   K, V [B, Hkv, Nkv, D]   O like Q
//
// All tensors are contiguous, row-major ("C order"). Query head h reads key/value head
// h / (Hq / Hkv) (grouped-query attention). Causal is aligned bottom-right: query i sees the
// keys j <= i + Nkv - Nq.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace al {

// The last two are the 8-bit floats: 4 bits of exponent and 3 of mantissa, largest 448; 5 and 2,
// largest 57344. A tensor in one of them comes with a scale for each head: an element stands for
// what is stored times the scale.
enum class DType { fp32, fp16, bf16, e4m3, e5m2 };

inline constexpr DType kEveryDType[] = {DType::fp32, DType::fp16, DType::bf16, DType::e4m3,
                                        DType::e5m2};

constexpr bool is_fp8(DType dtype) { return dtype == DType::e4m3 || dtype == DType::e5m2; }
const char* to_string(DType dtype);       // "fp32", "fp16", "bf16", "e4m3", "e5m2"
std::size_t bytes_of(DType dtype);        // bytes of one element
DType parse_dtype(const std::string& s);  // throws Error(usage), listing what is allowed

// Which part of the formula is computed. S and P are [B, Hq, Nq, Nkv]; their masked entries need
// not be written and are never read.
enum class Operation {
  scores,         // S = scale * Q K^T         Q, K → S in fp32
  softmax,        // P = softmax(S), by rows   S → P
  probabilities,  // both, one after the other Q, K → P
  pv,             // O = P V                   P, V → O
  attention,      // all of it                 Q, K, V → O, and LSE if asked
};

enum class Tensor { q, k, v, s, p };  // what an operation can read

inline constexpr Operation kOperations[] = {Operation::scores, Operation::softmax,
                                            Operation::probabilities, Operation::pv,
                                            Operation::attention};

const char* to_string(Operation operation);  // "scores", "softmax", …
bool reads(Operation operation, Tensor tensor);

struct Problem {
  Operation operation = Operation::attention;
  int batch = 1;
  int heads = 8;                       // Hq
  int kv_heads = 8;                    // Hkv, divides heads
  int seq = 1024;                      // Nq
  int kv_seq = 1024;                   // Nkv
  int head_dim = 64;                   // D
  DType dtype = DType::fp16;           // of Q, and of P and O; of 8 bits: O is fp16
  std::optional<DType> kv_dtype = {};  // of K and V; nothing: dtype
  bool causal = true;
  double scale = 0.125;
  // Operation::softmax alone: S is fp32 whatever dtype is. So it is inside the pipelines; where
  // the softmax is timed for itself, S has dtype.
  bool fp32_scores = false;
  // Of 8-bit inputs: all heads of a tensor have the same factor.
  bool one_factor = false;
  // How many of its kv_seq keys each sequence has, [B], 0 … kv_seq; empty: all. Kernels read
  // Arguments::kv_len, for only the device may know: of these numbers a launch may use but the
  // size. Causal is aligned to a sequence's own last key.
  std::vector<int> kv_len = {};
  // Keys of a page of K and V, which then are [n, Hkv, page_size, D]; 0: K and V are whole.
  int page_size = 0;

  int group() const { return heads / kv_heads; }
  std::int64_t q_rows() const { return std::int64_t{batch} * heads * seq; }
  std::int64_t q_elements() const { return q_rows() * head_dim; }
  std::int64_t kv_elements() const { return std::int64_t{batch} * kv_heads * kv_seq * head_dim; }
  std::int64_t score_elements() const { return q_rows() * kv_seq; }

  DType cache_dtype() const { return kv_dtype.value_or(dtype); }  // of K and V
  int max_pages() const { return page_size > 0 ? (kv_seq + page_size - 1) / page_size : 0; }
  // Elements of K's memory, or V's: whole pages where there are pages.
  std::int64_t cache_elements() const;
  int keys(int sequence) const { return kv_len.empty() ? kv_seq : kv_len[sequence]; }

  DType score_dtype() const;  // of S, read or written
  // The result as rows: q_rows() of them, out_columns() wide, the first visible_columns(i) of
  // which count in a row of query i. For O that is all of them, for S and P the visible keys.
  int out_columns() const;
  int visible_columns(int i) const;
  DType out_dtype() const;
  std::int64_t out_elements() const { return q_rows() * out_columns(); }
  std::size_t out_bytes() const { return out_elements() * bytes_of(out_dtype()); }
  // Bytes of the tensors the operation reads.
  std::size_t in_bytes() const;

  // Number of keys query row i sees: 0 … keys(sequence).
  int visible_keys(int i, int sequence = 0) const;

  bool operator==(const Problem&) const = default;
};

// Throws Error(usage) unless every size is >= 1, head_dim is one of 16, 32, 64, 128, 256,
// kv_heads divides heads, the scale is finite, kv_len has a possible length for each sequence, a
// page holds 16, 32, 64, 128 or 256 keys, and every tensor can be indexed.
void validate(const Problem& problem);

// "B1 H8 N1024 D64 fp16 causal"; kv_heads and kv_seq appear when they differ, and behind it all
// what is beyond the plain problem: "kv e4m3", "keys 37–8192", "pages of 64".
std::string to_string(const Problem& problem);

// What must be paid whatever the kernel: floating-point operations (a multiply-add counts two),
// and bytes with every input read once and every output written once.
//
// FLOPs follow the field's convention, 4 B Hq Nq Nkv D halved for causal (2 … for Q K^T or P V
// alone, and none for a softmax: it is a matter of bytes); causal uses the area under the diagonal,
// so Nq != Nkv comes out right too: Nq Nkv - Nq²/2 for Nq <= Nkv.
struct Work {
  double flops = 0;
  double bytes = 0;
};
Work minimum_work(const Problem& problem);

const char* result_name(const Problem& problem);  // what is computed: "S", "P" or "O"

}  // namespace al
