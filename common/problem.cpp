#include "common/problem.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/error.hpp"

namespace al {

const char* to_string(DType dtype) {
  switch (dtype) {
    case DType::fp32:
      return "fp32";
    case DType::fp16:
      return "fp16";
    case DType::bf16:
      return "bf16";
    case DType::e4m3:
      return "e4m3";
    case DType::e5m2:
      return "e5m2";
  }
  return "?";
}

std::size_t bytes_of(DType dtype) { return dtype == DType::fp32 ? 4 : is_fp8(dtype) ? 1 : 2; }

DType parse_dtype(const std::string& s) {
  for (DType dtype : kEveryDType) {
    if (s == to_string(dtype)) return dtype;
  }
  throw usage_error(
      fmt::format("--dtype {} is not known: choose fp16, bf16, fp32, e4m3 or e5m2.", s));
}

const char* to_string(Operation operation) {
  switch (operation) {
    case Operation::scores:
      return "scores";
    case Operation::softmax:
      return "softmax";
    case Operation::probabilities:
      return "probabilities";
    case Operation::pv:
      return "pv";
    case Operation::attention:
      return "attention";
  }
  return "?";
}

bool reads(Operation operation, Tensor tensor) {
  const bool multiplies_by_v = operation == Operation::pv || operation == Operation::attention;
  switch (tensor) {
    case Tensor::q:
    case Tensor::k:
      return operation != Operation::softmax && operation != Operation::pv;
    case Tensor::v:
      return multiplies_by_v;
    case Tensor::s:
      return operation == Operation::softmax;
    case Tensor::p:
      return operation == Operation::pv;
  }
  return false;
}

DType Problem::score_dtype() const {
  return operation == Operation::softmax && !fp32_scores ? dtype : DType::fp32;
}

// What is multiplied by V has V's columns.
int Problem::out_columns() const { return reads(operation, Tensor::v) ? head_dim : kv_seq; }

int Problem::visible_columns(int i) const {
  return reads(operation, Tensor::v) ? head_dim : visible_keys(i);
}

DType Problem::out_dtype() const {
  if (operation == Operation::scores) return DType::fp32;
  return is_fp8(dtype) && reads(operation, Tensor::v) ? DType::fp16 : dtype;
}

std::int64_t Problem::cache_elements() const {
  if (page_size == 0) return kv_elements();
  return std::int64_t{batch} * max_pages() * kv_heads * page_size * head_dim;
}

std::size_t Problem::in_bytes() const {
  std::size_t bytes = 0;
  if (reads(operation, Tensor::q)) bytes += q_elements() * bytes_of(dtype);
  if (reads(operation, Tensor::k)) bytes += cache_elements() * bytes_of(cache_dtype());
  if (reads(operation, Tensor::v)) bytes += cache_elements() * bytes_of(cache_dtype());
  if (reads(operation, Tensor::s)) bytes += score_elements() * bytes_of(score_dtype());
  if (reads(operation, Tensor::p)) bytes += score_elements() * bytes_of(dtype);
  return bytes;
}

int Problem::visible_keys(int i, int sequence) const {
  const int all = keys(sequence);
  if (!causal) return all;
  return static_cast<int>(std::clamp<std::int64_t>(std::int64_t{i} + 1 + all - seq, 0, all));
}

void validate(const Problem& p) {
  const struct {
    const char* option;
    int value;
  } sizes[] = {{"--batch", p.batch}, {"--heads", p.heads},   {"--kv-heads", p.kv_heads},
               {"--seq", p.seq},     {"--kv-seq", p.kv_seq}, {"--head-dim", p.head_dim}};
  for (const auto& [option, value] : sizes) {
    if (value < 1) {
      throw usage_error(
          fmt::format("{} {} is not possible: it must be at least 1.", option, value));
    }
  }
  constexpr int kHeadDims[] = {16, 32, 64, 128, 256};
  if (std::ranges::find(kHeadDims, p.head_dim) == std::end(kHeadDims)) {
    throw usage_error(
        fmt::format("--head-dim {} is not supported: choose 16, 32, 64, 128 or 256.", p.head_dim));
  }
  if (p.heads % p.kv_heads != 0) {
    throw usage_error(
        fmt::format("--heads {} cannot share --kv-heads {}: the number of query heads must be a "
                    "multiple of the key/value heads.",
                    p.heads, p.kv_heads));
  }
  if (!std::isfinite(p.scale)) {
    throw usage_error(
        fmt::format("--scale {} is not possible: it must be a finite number.", p.scale));
  }
  if (!p.kv_len.empty() && std::ssize(p.kv_len) != p.batch) {
    throw usage_error(fmt::format("--kv-len names {} lengths for --batch {}: give one for each.",
                                  p.kv_len.size(), p.batch));
  }
  for (const int keys : p.kv_len) {
    if (keys < 0 || keys > p.kv_seq) {
      throw usage_error(fmt::format(
          "--kv-len {} is not possible: it must be from 0 to --kv-seq {}.", keys, p.kv_seq));
    }
  }
  constexpr int kPageSizes[] = {0, 16, 32, 64, 128, 256};
  if (std::ranges::find(kPageSizes, p.page_size) == std::end(kPageSizes)) {
    throw usage_error(fmt::format(
        "--page-size {} is not supported: choose 16, 32, 64, 128 or 256 keys.", p.page_size));
  }

  // In floating point, because these are the products that would overflow an integer.
  const double sequences = double(p.batch) * p.heads;
  if (sequences > std::numeric_limits<std::int32_t>::max()) {
    throw usage_error(
        fmt::format("--batch {} times --heads {} is more than an index holds: at most 2147483647.",
                    p.batch, p.heads));
  }
  const double rows = sequences * p.seq, keys = double(p.batch) * p.kv_heads * p.kv_seq;
  const bool s = p.operation == Operation::scores || p.operation == Operation::softmax;
  const bool probabilities = p.operation == Operation::softmax || p.operation == Operation::pv ||
                             p.operation == Operation::probabilities;
  const struct {
    const char* name;
    double bytes;
  } tensors[] = {
      {"Q", rows * p.head_dim * bytes_of(p.dtype)},          // O has the same size
      {"K", keys * p.head_dim * bytes_of(p.cache_dtype())},  // and so has V
      {"S", s ? rows * p.kv_seq * bytes_of(p.score_dtype()) : 0},
      {"P", probabilities ? rows * p.kv_seq * bytes_of(p.dtype) : 0},
  };
  for (const auto& [name, bytes] : tensors) {
    if (bytes > 0x1p62) {
      throw usage_error(fmt::format(
          "{} is too large: {} alone would take {:.3g} bytes, and an index holds at most {:.3g}; "
          "choose smaller sizes.",
          to_string(p), name, bytes, 0x1p62));
    }
  }
}

std::string to_string(const Problem& p) {
  std::string text = fmt::format("B{} H{}", p.batch, p.heads);
  if (p.kv_heads != p.heads) text += fmt::format(" Hkv{}", p.kv_heads);
  text += fmt::format(" N{}", p.seq);
  if (p.kv_seq != p.seq) text += fmt::format(" Nkv{}", p.kv_seq);
  text += fmt::format(" D{} {} {}", p.head_dim, to_string(p.dtype), p.causal ? "causal" : "full");
  if (p.cache_dtype() != p.dtype) text += fmt::format(" kv {}", to_string(p.cache_dtype()));
  if (p.one_factor) text += " one factor";
  if (!p.kv_len.empty()) {
    const auto [fewest, most] = std::ranges::minmax(p.kv_len);
    text += fmt::format(" keys {}–{}", fewest, most);
  }
  if (p.page_size > 0) text += fmt::format(" pages of {}", p.page_size);
  return text;
}

Work minimum_work(const Problem& p) {
  // The part of the Nq x Nkv rectangle that is computed; causal keeps what lies under a
  // diagonal that ends in the bottom-right corner.
  double area = 0, keys = 0;  // of all sequences
  for (int sequence = 0; sequence < p.batch; ++sequence) {
    const double n_q = p.seq, n_kv = p.keys(sequence);
    const double hidden = n_q <= n_kv ? n_q * n_q / 2 : n_q * n_kv - n_kv * n_kv / 2;
    area += n_q * n_kv - (p.causal ? hidden : 0);
    keys += n_kv;
  }
  const double visible = p.heads * area;  // entries of S or P that count

  const bool times_k = reads(p.operation, Tensor::q), times_v = reads(p.operation, Tensor::v);
  Work work{.flops = 2 * visible * p.head_dim * (times_k + times_v), .bytes = 0};
  const double element = bytes_of(p.dtype);
  const double cache = keys * p.kv_heads * p.head_dim * bytes_of(p.cache_dtype());  // K, or V
  if (times_k) work.bytes += p.q_elements() * element + cache;
  if (times_v) work.bytes += cache + p.q_elements() * bytes_of(p.out_dtype());
  if (reads(p.operation, Tensor::s)) work.bytes += visible * bytes_of(p.score_dtype());
  if (reads(p.operation, Tensor::p)) work.bytes += visible * element;
  if (!times_v) work.bytes += visible * bytes_of(p.out_dtype());  // S or P is the result
  return work;
}

const char* result_name(const Problem& p) {
  if (p.operation == Operation::scores) return "S";
  return reads(p.operation, Tensor::v) ? "O" : "P";
}

}  // namespace al
