// Runs the kernel of a lab of this chapter: the student's copy of prefetch.cuh comes first.
#include "06_fp8_prefetch_v3/prefetch.cuh"

#include "06_fp8_prefetch_v3/quantise.cuh"
#include "common/lab/run.hpp"

namespace al::fp8 {

std::size_t v_tiles_bytes(const Problem& p) {
  return std::size_t(p.batch) * p.kv_heads * ceil_div(p.kv_seq, 16) * 16 * p.head_dim;
}

// D 64 in T; of 8 bits V is laid in tiles first.
template <typename T = __nv_fp8_e4m3>
void launch_lab(const Problem& p, const Arguments& a, Stream stream) {
  Operands x{.dtype = p.dtype,
             .q = a.q,
             .k = a.k,
             .v = a.v,
             .scales = {a.q_scale, a.k_scale, a.v_scale},
             .key_groups = ceil_div(p.kv_seq, 16),
             .out_dtype = p.out_dtype(),
             .out = a.out,
             .lse = a.lse};
  if constexpr (sizeof(T) == 1) {
    const int threads = p.batch * p.kv_heads * x.key_groups * (p.head_dim / 4);
    launch(tile_V<std::uint8_t>,
           {.name = "tile_V",
            .grid = dim3(ceil_div(threads, 128)),
            .block = dim3(128),
            .stream = stream},
           static_cast<const std::uint8_t*>(a.v), static_cast<std::uint8_t*>(a.workspace), nullptr,
           p.dtype, p.kv_heads, p.kv_seq, p.head_dim, x.key_groups, threads);
    x.v = a.workspace;
  }
  launch_attention_mma<T, 64, 2, 4>(p, x, stream);
}

}  // namespace al::fp8

int main(int argc, char** argv) {
  return al::lab::run(argc, argv, {.launch = AL_LAB_LAUNCH, .workspace = al::fp8::v_tiles_bytes});
}
