// wgmma on a GPU of sm_90a and in the emulator alike: every layout of the operands in shared
// memory. Inputs are small integers, so every product and sum is exact.
#include <doctest/doctest.h>

#include <vector>

#include "common/buffer.hpp"
#include "common/device.hpp"
#include "common/launch.cuh"
#include "common/ptx/mbarrier.cuh"
#include "common/ptx/wgmma.cuh"

namespace al {
namespace {

// An operand [ROWS, K] in shared memory, 128 bytes of K. Element (row, k) is at byte place(row, k).
// K-major: panels of a span's bytes along k, [K / span][ROWS][span]; MN-major: along the rows.
template <typename T, int ROWS, Swizzle SWIZZLE, Major MAJOR>
struct alignas(1024) Operand {
  static constexpr int K = 128 / sizeof(T), SPAN = 16 << static_cast<int>(SWIZZLE);
  unsigned char bytes[ROWS * 128];

  static __device__ int place(int row, int k) {
    const int size = sizeof(T);
    const int run = (MAJOR == Major::k ? k : row) * size, line = MAJOR == Major::k ? row : k;
    const int lines = MAJOR == Major::k ? ROWS : K;
    const int at = run / SPAN * lines * SPAN + line * SPAN + run % SPAN;
    return at ^ (at >> 7 & ((1 << static_cast<int>(SWIZZLE)) - 1)) << 4;
  }
  // Of the K elements that begin at byte 32 · step of their row.
  __device__ std::uint64_t descriptor(int step) const {
    constexpr bool PLAIN = SWIZZLE == Swizzle::none;
    if constexpr (MAJOR == Major::k) {
      const int at = step * 32 / SPAN * ROWS * SPAN + step * 32 % SPAN;
      return wgmma_descriptor(bytes + at, SWIZZLE, PLAIN ? ROWS * 16 : 16, 8 * SPAN);
    } else {
      const int at = step * 32 / static_cast<int>(sizeof(T)) * SPAN;
      return wgmma_descriptor(bytes + at, SWIZZLE, PLAIN ? 8 * SPAN : K * SPAN,
                              PLAIN ? K * SPAN : 8 * SPAN);
    }
  }
};

template <typename TA, typename TB, int N, Swizzle SWIZZLE, Major A_MAJOR, Major B_MAJOR,
          bool REGISTERS>
__global__ void __launch_bounds__(128) multiply(const TA* A, const TB* B, float* D) {
  using OperandA = Operand<TA, 64, SWIZZLE, A_MAJOR>;
  using OperandB = Operand<TB, N, SWIZZLE, B_MAJOR>;
  constexpr int K = OperandA::K;
  SharedArena shared;
  auto& A_smem = shared.take<OperandA>("A_smem");
  auto& B_smem = shared.take<OperandB>("B_smem");
  const int t = threadIdx.x;
  for (int i = t; i < 64 * K; i += 128) {
    *reinterpret_cast<TA*>(A_smem.bytes + OperandA::place(i / K, i % K)) = A[i];
  }
  for (int i = t; i < N * K; i += 128) {
    *reinterpret_cast<TB*>(B_smem.bytes + OperandB::place(i / K, i % K)) = B[i];
  }
  fence_proxy_async();
  __syncthreads();  // both operands are there, and wgmma will see them

  const int row = t / 32 * 16 + t % 32 / 4, t4 = t % 4;
  float d[N / 2] = {};
  std::uint32_t a[4][4];
  constexpr int E = 4 / sizeof(TA);
  for (int step = 0; REGISTERS && step < 4; ++step) {
    for (int r = 0; r < 4; ++r) {
      const TA* from = A + (row + r % 2 * 8) * K + step * 8 * E + r / 2 * 4 * E + t4 * E;
      a[step][r] = *reinterpret_cast<const std::uint32_t*>(from);
    }
  }
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    if constexpr (REGISTERS) {
      wgmma_rs<TA, TB, B_MAJOR>(d, a[step], B_smem.descriptor(step), step > 0);
    } else {
      wgmma_ss<TA, TB, A_MAJOR, B_MAJOR>(d, A_smem.descriptor(step), B_smem.descriptor(step),
                                         step > 0);
    }
  }
  wgmma_commit();
  wgmma_wait<0>();
  for (int i = 0; i < N / 2; ++i) {
    D[(row + i / 2 % 2 * 8) * N + i / 4 * 8 + t4 * 2 + i % 2] = d[i];
  }
}

float small_integer(int i) { return static_cast<float>(i * 37 % 15 - 7); }

template <typename TA, typename TB, int N, Swizzle SWIZZLE, Major A_MAJOR = Major::k,
          Major B_MAJOR = Major::k, bool REGISTERS = false>
void check() {
  constexpr int K = 128 / sizeof(TA);
  CAPTURE(N);
  CAPTURE(static_cast<int>(SWIZZLE));
  std::vector<TA> A(64 * K);
  std::vector<TB> B(N * K);
  for (int i = 0; i < 64 * K; ++i) A[i] = static_cast<TA>(small_integer(i));
  for (int i = 0; i < N * K; ++i) B[i] = static_cast<TB>(small_integer(3 + i + i / K));
  DeviceBuffer a(A.size() * sizeof(TA), "A"), b(B.size() * sizeof(TB), "B"), d(64 * N * 4, "D");
  a.write(A.data(), a.size());
  b.write(B.data(), b.size());
  d.poison();
  launch(multiply<TA, TB, N, SWIZZLE, A_MAJOR, B_MAJOR, REGISTERS>,
         {"multiply", dim3(1), dim3(128),
          shared_bytes<Operand<TA, 64, SWIZZLE, A_MAJOR>, Operand<TB, N, SWIZZLE, B_MAJOR>>()},
         static_cast<const TA*>(a.data()), static_cast<const TB*>(b.data()),
         static_cast<float*>(d.data()));
  std::vector<float> D(64 * N);
  d.read(D.data(), d.size());
  int wrong = 0;
  for (int m = 0; m < 64; ++m) {
    for (int n = 0; n < N; ++n) {
      float sum = 0;
      for (int k = 0; k < K; ++k) {
        const int i = n * K + k;
        sum += small_integer(m * K + k) * small_integer(3 + i + i / K);
      }
      wrong += D[m * N + n] != sum;
    }
  }
  CHECK(wrong == 0);
}

constexpr Major kMn = Major::mn, kK = Major::k;

TEST_CASE("wgmma, operands K-major in every swizzle") {
  if (device().sm != 90) return;
  check<__half, __half, 64, Swizzle::b128>();
  check<__half, __half, 128, Swizzle::b64>();
  check<__half, __half, 8, Swizzle::b32>();
  check<__half, __half, 80, Swizzle::none>();
  check<__nv_bfloat16, __nv_bfloat16, 256, Swizzle::b128>();
}

TEST_CASE("wgmma, operands MN-major") {
  if (device().sm != 90) return;
  check<__half, __half, 128, Swizzle::b128, kK, kMn>();
  check<__half, __half, 64, Swizzle::b64, kK, kMn>();
  check<__nv_bfloat16, __nv_bfloat16, 32, Swizzle::b32, kMn, kMn>();
  check<__half, __half, 24, Swizzle::none, kMn, kMn>();
  check<__half, __half, 192, Swizzle::b128, kMn, kK>();
}

TEST_CASE("wgmma, a in registers") {
  if (device().sm != 90) return;
  check<__half, __half, 64, Swizzle::b128, kK, kMn, true>();
  check<__nv_bfloat16, __nv_bfloat16, 128, Swizzle::b64, kK, kK, true>();
  check<__nv_fp8_e4m3, __nv_fp8_e4m3, 256, Swizzle::none, kK, kK, true>();
  check<__nv_fp8_e4m3, __nv_fp8_e5m2, 64, Swizzle::b128, kK, kK, true>();
}

TEST_CASE("wgmma in FP8") {
  if (device().sm != 90) return;
  check<__nv_fp8_e4m3, __nv_fp8_e4m3, 160, Swizzle::b128>();
  check<__nv_fp8_e5m2, __nv_fp8_e5m2, 224, Swizzle::b64>();
  check<__nv_fp8_e5m2, __nv_fp8_e4m3, 32, Swizzle::b32>();
  check<__nv_fp8_e4m3, __nv_fp8_e5m2, 16, Swizzle::none>();
}

}  // namespace
}  // namespace al
