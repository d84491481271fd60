// The wrappers of common/ptx do what they say, on a GPU and in the emulator alike. Inputs are small
// integers, so every product and sum is exact and results are compared bit for bit.
#include <doctest/doctest.h>

#include <vector>

#include "common/buffer.hpp"
#include "common/device.hpp"
#include "common/launch.cuh"
#include "common/ptx/ldmatrix.cuh"
#include "common/ptx/mma.cuh"

namespace al {
namespace {

// -7 … 7, which every format holds exactly.
float small_integer(int i) { return static_cast<float>(i * 37 % 15 - 7); }

template <typename T>
std::vector<T> small_integers(int count, int from = 0) {
  std::vector<T> values(count);
  for (int i = 0; i < count; ++i) values[i] = static_cast<T>(small_integer(from + i));
  return values;
}

template <typename T>
std::vector<T> on_host(const DeviceBuffer& buffer) {
  std::vector<T> values(buffer.size() / sizeof(T));
  buffer.read(values.data(), buffer.size());
  return values;
}

// D [16, 8] = 1 + A [16, K] · B, with B [K, 8] given by columns, Bt [8, K]. 16-bit elements: also
// with B by rows, through the transposing load.
template <typename T>
__global__ void multiply(const T* A, const T* Bt, const T* B, float* D, bool by_rows) {
  constexpr int K = 32 / sizeof(T);
  SharedArena shared;
  auto& A_smem = shared.take<T[16][K]>("A_smem");
  auto& Bt_smem = shared.take<T[8][K]>("Bt_smem");
  auto& B_smem = shared.take<T[K][8]>("B_smem");
  const int lane = threadIdx.x;
  for (int i = lane; i < 16 * K; i += 32) A_smem[i / K][i % K] = A[i];
  for (int i = lane; i < 8 * K; i += 32) Bt_smem[i / K][i % K] = Bt[i];
  for (int i = lane; i < 8 * K; i += 32) B_smem[i / 8][i % 8] = B[i];
  __syncwarp();

  constexpr int HALF = K / 2;  // 16 bytes
  std::uint32_t a[4], b[2];
  ldmatrix_x4(a, &A_smem[lane % 16][lane / 16 * HALF]);
  if (by_rows) {
    ldmatrix_x2_trans(b, &B_smem[lane % 16][0]);
  } else {
    ldmatrix_x2(b, &Bt_smem[lane % 8][lane / 8 % 2 * HALF]);
  }
  float d[4] = {1, 1, 1, 1};
  if constexpr (sizeof(T) == 2) {
    mma_m16n8k16<T>(d, a, b);
  } else {
    mma_m16n8k32<T>(d, a, b);
  }
  for (int i = 0; i < 4; ++i) D[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}

template <typename T>
void check_multiply(bool by_rows) {
  constexpr int K = 32 / sizeof(T);
  const std::vector<T> A = small_integers<T>(16 * K), Bt = small_integers<T>(8 * K, 3);
  std::vector<T> B(8 * K);
  for (int i = 0; i < 8 * K; ++i) B[i] = Bt[i % 8 * K + i / 8];
  const DeviceBuffer a = uploaded(A, "A"), bt = uploaded(Bt, "Bt"), b = uploaded(B, "B");
  DeviceBuffer d(16 * 8 * sizeof(float), "D");
  d.poison();
  launch(multiply<T>, {"multiply", dim3(1), dim3(32), shared_bytes<T[16][K], T[8][K], T[K][8]>()},
         static_cast<const T*>(a.data()), static_cast<const T*>(bt.data()),
         static_cast<const T*>(b.data()), static_cast<float*>(d.data()), by_rows);
  const std::vector<float> D = on_host<float>(d);
  for (int m = 0; m < 16; ++m) {
    for (int n = 0; n < 8; ++n) {
      float sum = 1;
      for (int k = 0; k < K; ++k) sum += small_integer(m * K + k) * small_integer(3 + n * K + k);
      CHECK(D[m * 8 + n] == sum);
    }
  }
}

TEST_CASE("mma.sync and ldmatrix") {
  if (device().sm < 80) return;
  for (const bool by_rows : {false, true}) {
    CAPTURE(by_rows);
    check_multiply<__half>(by_rows);
    check_multiply<__nv_bfloat16>(by_rows);
  }
  if (device().sm < 89) return;
  check_multiply<__nv_fp8_e4m3>(false);
  check_multiply<__nv_fp8_e5m2>(false);
}

// Loads four 8 x 8 matrices, plain or transposed, and stores them again, plain or transposed.
template <bool TRANS_LOAD, bool TRANS_STORE>
__global__ void transpose_tiles(const std::uint16_t* in, std::uint16_t* out) {
  SharedArena shared;
  auto& tile = shared.take<std::uint16_t[32][8]>("tile");  // four matrices, one below the other
  const int lane = threadIdx.x;
  for (int i = lane; i < 256; i += 32) tile[i / 8][i % 8] = in[i];
  __syncwarp();
  std::uint32_t r[4];
  if constexpr (TRANS_LOAD) {
    ldmatrix_x4_trans(r, tile[lane]);
  } else {
    ldmatrix_x4(r, tile[lane]);
  }
  __syncwarp();  // all rows have been read
  if constexpr (TRANS_STORE) {
    stmatrix_x4_trans(tile[lane], r);
  } else {
    const std::uint32_t low[2] = {r[0], r[1]}, high[2] = {r[2], r[3]};
    stmatrix_x2(tile[lane % 16], low);
    stmatrix_x2(tile[16 + lane % 16], high);
  }
  __syncwarp();  // all rows have been written
  for (int i = lane; i < 256; i += 32) out[i] = tile[i / 8][i % 8];
}

TEST_CASE("stmatrix undoes ldmatrix") {
  if (device().sm < 90) return;
  std::vector<std::uint16_t> in(256);
  for (int i = 0; i < 256; ++i) in[i] = static_cast<std::uint16_t>(i);
  const DeviceBuffer from = uploaded(in, "in");
  DeviceBuffer to(512, "out");
  const auto run = [&](auto kernel, bool transposed) {
    to.poison();
    launch(kernel, {"transpose_tiles", dim3(1), dim3(32), shared_bytes<std::uint16_t[32][8]>()},
           static_cast<const std::uint16_t*>(from.data()), static_cast<std::uint16_t*>(to.data()));
    const auto out = on_host<std::uint16_t>(to);
    for (int i = 0; i < 256; ++i) {
      CHECK(out[i] == (transposed ? i / 64 * 64 + i % 8 * 8 + i / 8 % 8 : i));
    }
  };
  run(transpose_tiles<false, false>, false);
  run(transpose_tiles<true, false>, true);
  run(transpose_tiles<false, true>, true);
  run(transpose_tiles<true, true>, false);
}

}  // namespace
}  // namespace al
