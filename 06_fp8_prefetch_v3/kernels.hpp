// What the record (stage.cu), the accuracy table and the tests ask the chapter's kernels for. Each
// function is in a file of its own, because its many kernels take a while to compile.
#pragma once

#include <cstddef>
#include <cstdint>

#include "common/stage.hpp"

namespace al::fp8 {

// The factors of 8-bit tensors, [Hq], [Hkv], [Hkv]; nullptr: 1.
struct Scales {
  const float *q = nullptr, *k = nullptr, *v = nullptr;
};

// Attention on operands of `dtype`, whatever the problem's own is. Of 8 bits V comes in tiles
// (quantise.cuh) of key_groups · 16 keys a head.
struct Operands {
  DType dtype;
  const void *q, *k, *v;
  Scales scales = {};
  int key_groups = 0;
  DType out_dtype;  // fp16 or bf16; in 16 bits that of the operands
  void* out;
  float* lse;
  bool scale_P = true;  // false, for the accuracy table: P is rounded as it is, in [0, 1]
};

// prefetch.cuh: D 64, 128, 256; 2 stages and 8 or 4 warps, and for fp16 and e4m3 at D 64 and 128
// also 1 stage and, with 8 warps, 3.
struct MmaShape {
  int stages, warps;
  bool operator==(const MmaShape&) const = default;
};
void launch_mma(const Problem& p, const Operands& operands, MmaShape shape, Stream stream);
std::size_t shared_bytes_mma(DType dtype, int head_dim, MmaShape shape);

// hopper.cuh: 8 bits; D 64, 128, 256; sm_90. V in whole tiles of keys.
void launch_wgmma(const Problem& p, const Operands& operands, Stream stream);
int key_groups_wgmma(const Problem& p);

// The fastest of them on this device for operands of 8 bits, and the tiles of V it wants.
bool takes_wgmma(const DeviceInfo& device);
int key_groups_of_best(const Problem& p);
void launch_best(const Problem& p, const Operands& operands, Stream stream);

// quantise.cuh.
struct Quantisation {
  DType format = DType::e4m3;
  bool per_head = true;  // else one factor for the whole tensor, the same in every head's place
  bool rotate = false;   // Q and K
};

// A problem of 16 bits in 8, as it lies in a workspace.
struct Tensors8 {
  std::uint8_t *q, *k;                 // [B, Hq, Nq, D], [B, Hkv, Nkv, D]
  std::uint8_t* v_tiles;               // [B, Hkv, key_groups, D, 16]
  float *q_scale, *k_scale, *v_scale;  // [Hq], [Hkv], [Hkv]
  float* maxima;                       // of each chunk (quantise.cuh)

  static std::size_t bytes(const Problem& p, int key_groups);
  Tensors8(const Problem& p, int key_groups, void* workspace);
};

// Q, K and V of p (fp16 or bf16; D 64, 128 or 256) → `out`. Factors that `a` brings are taken as
// they are, the others are found.
void launch_quantise(const Problem& p, const Quantisation& how, const Arguments& a,
                     const Tensors8& out, int key_groups, Stream stream);
// V of 8 bits, [B, Hkv, Nkv, D] → tiles.
void launch_tile_V(const Problem& p, const void* v, std::uint8_t* v_tiles, int key_groups,
                   Stream stream);

}  // namespace al::fp8
