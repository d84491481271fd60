// Attention by the rules of a lab's variant, one thread a row and nothing clever: it shows that the
// check can be passed (lab_test.py). The rules come as macros AL_RULE_*, 0 where there is none
// (of a sink: -INFINITY).
#pragma once

#include "common/dispatch.cuh"
#include "common/kernel_shape.cuh"
#include "common/launch.cuh"
#include "common/stage.hpp"
#include "common/vector.cuh"

namespace al::serial {

struct Task {
  KernelShape shape;
  int rows, operation;  // 0 scores, 1 softmax, 2 P V, 3 attention
  const int* kv_len;    // [B] or nullptr
};

// Does query i see key j, of so many keys?
__device__ inline bool sees(const KernelShape& x, int keys, int i, int j) {
  if (j < AL_RULE_PREFIX) return j < keys;
  const int end = x.causal || AL_RULE_CAUSAL ? min(i + 1 + keys - x.Nq, keys) : keys;
  const int chunk = AL_RULE_CHUNK > 0 ? AL_RULE_CHUNK : keys + x.Nq;
  return j < end && (AL_RULE_WINDOW == 0 || j >= end - AL_RULE_WINDOW) &&
         j / chunk == (i + keys - x.Nq) / chunk;
}

template <typename T>
__global__ void row_by_row(const T* Q, const T* K, const T* V, const float* S, const T* P,
                           float* S_out, T* out, float* LSE, Task task) {
  const KernelShape& x = task.shape;
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= task.rows) return;
  const int bh = row / x.Nq, i = row % x.Nq;
  const int keys = task.kv_len ? task.kv_len[bh / x.heads] : x.Nkv;
  const size_t kv = size_t(x.kv_head(bh)) * x.Nkv * x.D;
  const auto score = [&](int j) {
    if (task.operation == 1) return S[size_t(row) * x.Nkv + j];
    float s = 0;
    for (int d = 0; d < x.D; ++d) {
      const float q = to_float(Q[size_t(row) * x.D + d]);
      const float k =
          to_float(K[kv + (AL_RULE_K_TRANSPOSED ? size_t(d) * x.Nkv + j : size_t(j) * x.D + d)]);
      s += AL_RULE_DISTANCE ? -(q - k) * (q - k) : q * k;
    }
    s *= x.scale;
    if (AL_RULE_SOFT_CAP > 0) s = AL_RULE_SOFT_CAP * tanhf(s / AL_RULE_SOFT_CAP);
    if (AL_RULE_ALIBI > 0) {
      const float slope = exp2f(-AL_RULE_ALIBI * float(bh % x.heads + 1) / float(x.heads));
      s -= slope * fabsf(float(i + keys - x.Nq - j));
    }
    return s;
  };
  const auto value = [&](int j, int d) {
    return to_float(V[kv + (AL_RULE_V_TRANSPOSED ? size_t(d) * x.Nkv + j : size_t(j) * x.D + d)]);
  };
  if (task.operation == 0) {
    for (int j = 0; j < x.Nkv; ++j) {
      if (sees(x, keys, i, j)) S_out[size_t(row) * x.Nkv + j] = score(j);
    }
    return;
  }
  float m = -INFINITY, l = 0;
  if (task.operation != 2) {
    m = AL_RULE_SINK;
    for (int j = 0; j < x.Nkv; ++j) {
      if (sees(x, keys, i, j)) m = fmaxf(m, score(j));
    }
    if (AL_RULE_SINK > -INFINITY) l = expf(AL_RULE_SINK - m);
    for (int j = 0; j < x.Nkv; ++j) {
      if (sees(x, keys, i, j)) l += m == -INFINITY ? 0 : expf(score(j) - m);
    }
  }
  const auto weight = [&](int j) {
    if (task.operation == 2) {
      const float distance = fabsf(float(i + keys - x.Nq - j));
      const float fade = AL_RULE_HALF_LIFE > 0 ? exp2f(-distance / float(AL_RULE_HALF_LIFE)) : 1.0f;
      return fade * to_float(P[size_t(row) * x.Nkv + j]);
    }
    return l == 0 ? 0.0f : expf(score(j) - m) / l;
  };
  if (task.operation == 1) {
    for (int j = 0; j < x.Nkv; ++j) {
      out[size_t(row) * x.Nkv + j] = from_float<T>(sees(x, keys, i, j) ? weight(j) : 0.0f);
    }
    return;
  }
  float O[256] = {};
  for (int j = 0; j < x.Nkv; ++j) {
    if (!sees(x, keys, i, j)) continue;
    const float w = weight(j);
    for (int d = 0; d < x.D; ++d) O[d] += w * value(j, d);
  }
  for (int d = 0; d < x.D; ++d) out[size_t(row) * x.D + d] = from_float<T>(O[d]);
  if (LSE) LSE[row] = l == 0 ? -INFINITY : m + logf(l);
}

inline void launch_serial(const Problem& p, const Arguments& a, Stream stream) {
  const int rows = static_cast<int>(p.q_rows());
  const int operation = p.operation == Operation::scores    ? 0
                        : p.operation == Operation::softmax ? 1
                        : p.operation == Operation::pv      ? 2
                                                            : 3;
  dispatch(p.dtype, [&]<typename T>(T) {
    launch(row_by_row<T>,
           {.name = "row_by_row", .grid = dim3(ceil_div(rows, 32)), .block = 32, .stream = stream},
           static_cast<const T*>(a.q), static_cast<const T*>(a.k), static_cast<const T*>(a.v),
           static_cast<const float*>(a.s), static_cast<const T*>(a.p), static_cast<float*>(a.out),
           static_cast<T*>(a.out), a.lse, Task{KernelShape(p), rows, operation, a.kv_len});
  });
}

}  // namespace al::serial
