// Runs the Hopper kernel of a lab of this chapter: the student's copy of hopper.cuh comes first.
#include "06_fp8_prefetch_v3/hopper.cuh"

#include "06_fp8_prefetch_v3/quantise.cuh"
#include "common/lab/run.hpp"

namespace al::fp8 {

constexpr int kBlockN = WgmmaTile<64>::BLOCK_N;
int key_groups_lab(const Problem& p) { return ceil_div(p.kv_seq, kBlockN) * (kBlockN / 16); }

std::size_t v_tiles_bytes(const Problem& p) {
  return std::size_t(p.batch) * p.kv_heads * key_groups_lab(p) * 16 * p.head_dim;
}

// e4m3, D 64.
void launch_lab(const Problem& p, const Arguments& a, Stream stream) {
  const int key_groups = key_groups_lab(p);
  const int threads = p.batch * p.kv_heads * key_groups * (p.head_dim / 4);
  launch(tile_V<std::uint8_t>,
         {.name = "tile_V",
          .grid = dim3(ceil_div(threads, 128)),
          .block = dim3(128),
          .stream = stream},
         static_cast<const std::uint8_t*>(a.v), static_cast<std::uint8_t*>(a.workspace), nullptr,
         p.dtype, p.kv_heads, p.kv_seq, p.head_dim, key_groups, threads);
  launch_attention_wgmma<__nv_fp8_e4m3, 64>(p,
                                            {.dtype = p.dtype,
                                             .q = a.q,
                                             .k = a.k,
                                             .v = a.workspace,
                                             .scales = {a.q_scale, a.k_scale, a.v_scale},
                                             .key_groups = key_groups,
                                             .out_dtype = p.out_dtype(),
                                             .out = a.out,
                                             .lse = a.lse},
                                            stream);
}

}  // namespace al::fp8

int main(int argc, char** argv) {
  return al::lab::run(argc, argv, {.launch = AL_LAB_LAUNCH, .workspace = al::fp8::v_tiles_bytes});
}
