// The sizes every kernel takes, as one argument; and the host-side view of a tile grid.
#pragma once

#include <cstdint>

#include "common/device.cuh"
#include "common/problem.hpp"

namespace al {

struct KernelShape {
  int heads;  // Hq
  int group;  // query heads that share one key/value head: Hq / Hkv
  int Nq, Nkv, D;
  float scale;
  bool causal;

  explicit KernelShape(const Problem& p)
      : heads(p.heads),
        group(p.group()),
        Nq(p.seq),
        Nkv(p.kv_seq),
        D(p.head_dim),
        scale(static_cast<float>(p.scale)),
        causal(p.causal) {}

  // Keys that query row i sees: j < visible_keys(i). Negative or 0: none.
  __host__ __device__ int visible_keys(int i) const { return causal ? i + 1 + Nkv - Nq : Nkv; }

  // Key/value head, counted over the batch, that query head `bh` (0 … B·Hq - 1) reads. Both are
  // counted batch by batch, so one division serves.
  __host__ __device__ int kv_head(int bh) const { return bh / group; }
};

__host__ __device__ constexpr int ceil_div(int a, int b) { return (a + b - 1) / b; }

}  // namespace al
