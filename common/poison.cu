#include "common/poison.cuh"

#include <algorithm>

#include "common/buffer.hpp"
#include "common/launch.cuh"

namespace al {
namespace {

// The result as a matrix [rows, columns], and the rule that says which entries count.
struct Result {
  std::int64_t elements;
  int columns, rows_per_head, kv_seq;
  bool masked;  // causal S or P

  explicit Result(const Problem& p)
      : elements(p.out_elements()),
        columns(p.out_columns()),
        rows_per_head(p.seq),
        kv_seq(p.kv_seq),
        masked(p.visible_columns(0) < p.out_columns()) {}  // the first row sees the fewest

  __host__ __device__ bool counts(std::int64_t element) const {
    if (!masked) return true;
    const int i = static_cast<int>(element / columns % rows_per_head);
    const int j = static_cast<int>(element % columns);
    return j <= i + kv_seq - rows_per_head;
  }
};

#ifdef AL_EMULATOR

// On the host: a kernel that looked for unwritten elements would be reported for reading them.
template <typename Bits>
std::int64_t count(const Result& result, const Bits* out) {
  std::int64_t unwritten = 0;
  for (std::int64_t e = 0; e < result.elements; ++e) {
    unwritten += out[e] == static_cast<Bits>(~Bits{0}) && result.counts(e);
  }
  return unwritten;
}

#else

constexpr int kThreads = 256;

// Reads 16 bytes at a time. Where an element is, which takes divisions, is worked out only for
// the poisoned ones, so this runs at the speed of memory.
template <typename Bits>
__global__ void count_poison(Result result, const Bits* out, unsigned long long* unwritten) {
  constexpr int VECTOR = sizeof(uint4) / sizeof(Bits);
  constexpr Bits POISON = static_cast<Bits>(~Bits{0});
  const std::int64_t vectors = result.elements / VECTOR;
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  const std::int64_t first = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;

  unsigned long long mine = 0;
  for (std::int64_t v = first; v < vectors; v += stride) {
    union {
      uint4 loaded;
      Bits element[VECTOR];
    } bits;
    bits.loaded = reinterpret_cast<const uint4*>(out)[v];
#pragma unroll
    for (int x = 0; x < VECTOR; ++x) {
      if (bits.element[x] == POISON) mine += result.counts(v * VECTOR + x);
    }
  }
  // The last elements, fewer than a vector.
  for (std::int64_t e = vectors * VECTOR + first; e < result.elements; e += stride) {
    if (out[e] == POISON) mine += result.counts(e);
  }
  if (mine > 0) atomicAdd(unwritten, mine);
}

template <typename Bits>
std::int64_t count(const Result& result, const Bits* out) {
  unsigned long long unwritten = 0;
  DeviceBuffer counter(sizeof(unwritten), "unwritten count");
  counter.write(&unwritten, sizeof(unwritten));
  // Enough blocks to fill any GPU, each with much to do.
  const std::int64_t blocks = std::clamp<std::int64_t>(
      result.elements * sizeof(Bits) / (kThreads * sizeof(uint4)), 1, 16 * device().sms);
  launch(count_poison<Bits>,
         {.name = "count_poison", .grid = dim3(static_cast<unsigned>(blocks)), .block = kThreads},
         result, out, static_cast<unsigned long long*>(counter.data()));
  counter.read(&unwritten, sizeof(unwritten));
  return static_cast<std::int64_t>(unwritten);
}

#endif

}  // namespace

std::int64_t count_unwritten(const Problem& problem, const void* out) {
  const Result result(problem);
  synchronize();
  if (problem.out_dtype() == DType::fp32) {
    return count(result, static_cast<const std::uint32_t*>(out));
  }
  return count(result, static_cast<const std::uint16_t*>(out));
}

}  // namespace al
