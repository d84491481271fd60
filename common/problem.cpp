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
  }
  return "?";
}

std::size_t bytes_of(DType dtype) { return dtype == DType::fp32 ? 4 : 2; }

DType parse_dtype(const std::string& s) {
  for (DType dtype : {DType::fp32, DType::fp16, DType::bf16}) {
    if (s == to_string(dtype)) return dtype;
  }
  throw usage_error(fmt::format("--dtype {} is not known: choose fp16, bf16 or fp32.", s));
}

std::int64_t Problem::out_elements() const {
  return operation == Operation::scores ? score_elements() : q_elements();
}

std::size_t Problem::out_element_bytes() const {
  return operation == Operation::scores ? sizeof(float) : bytes_of(dtype);
}

std::size_t Problem::in_bytes() const {
  const int kv_tensors = operation == Operation::scores ? 1 : 2;
  return (q_elements() + kv_tensors * kv_elements()) * bytes_of(dtype);
}

int Problem::visible_keys(int i) const {
  if (!causal) return kv_seq;
  const std::int64_t keys = std::int64_t{i} + 1 + kv_seq - seq;
  return static_cast<int>(std::clamp<std::int64_t>(keys, 0, kv_seq));
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

  // In floating point, because these are the products that would overflow an integer.
  const double sequences = double(p.batch) * p.heads;
  if (sequences > std::numeric_limits<std::int32_t>::max()) {
    throw usage_error(
        fmt::format("--batch {} times --heads {} is more than an index holds: at most 2147483647.",
                    p.batch, p.heads));
  }
  const double rows = sequences * p.seq;
  const struct {
    const char* name;
    double bytes;
  } tensors[] = {
      {"Q", rows * p.head_dim * bytes_of(p.dtype)},
      {"K", double(p.batch) * p.kv_heads * p.kv_seq * p.head_dim * bytes_of(p.dtype)},
      {"S", p.operation == Operation::scores ? rows * p.kv_seq * sizeof(float) : 0},
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
  return text +
         fmt::format(" D{} {} {}", p.head_dim, to_string(p.dtype), p.causal ? "causal" : "full");
}

Work minimum_work(const Problem& p) {
  // The part of the Nq x Nkv rectangle that is computed; causal keeps what lies under a
  // diagonal that ends in the bottom-right corner.
  const double n_q = p.seq, n_kv = p.kv_seq;
  double area = n_q * n_kv;
  if (p.causal) area = n_q <= n_kv ? area - n_q * n_q / 2 : n_kv * n_kv / 2;
  const double scores = double(p.batch) * p.heads * area;

  if (p.operation == Operation::scores) {
    return {.flops = 2 * scores * p.head_dim, .bytes = p.in_bytes() + scores * sizeof(float)};
  }
  return {.flops = 4 * scores * p.head_dim, .bytes = double(p.in_bytes() + p.out_bytes())};
}

}  // namespace al
