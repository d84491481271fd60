// mma.sync and movmatrix. The fragments of 32 lanes are put together to whole matrices, multiplied,
// and dealt out again: see common/ptx/mma.cuh for who holds what.
#include "common/emulator/decode.hpp"
#include "common/emulator/tensor_core.hpp"

namespace al::emulator {
namespace {

struct Operands {
  float d[4];
  std::uint32_t a[4], b[2];
};

template <typename T>
void complete(void* const (&lanes)[32]) {
  constexpr int E = 4 / sizeof(T);  // elements in a register
  constexpr int K = 8 * E;
  float A[16][K], B[K][8], D[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& mine = *static_cast<const Operands*>(lanes[lane]);
    const int g = lane / 4, t = lane % 4;
    float a[4 * E], b[2 * E];
    decode<T>(mine.a, 4 * E, a);
    decode<T>(mine.b, 2 * E, b);
    for (int i = 0; i < E; ++i) {
      A[g][E * t + i] = a[i];
      A[g + 8][E * t + i] = a[E + i];
      A[g][4 * E + E * t + i] = a[2 * E + i];
      A[g + 8][4 * E + E * t + i] = a[3 * E + i];
      B[E * t + i][g] = b[i];
      B[4 * E + E * t + i][g] = b[E + i];
    }
    for (int i = 0; i < 4; ++i) D[g + i / 2 * 8][2 * t + i % 2] = mine.d[i];
  }
  for (int m = 0; m < 16; ++m) {
    for (int k = 0; k < K; ++k) {
      for (int n = 0; n < 8; ++n) D[m][n] += A[m][k] * B[k][n];
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    auto& mine = *static_cast<Operands*>(lanes[lane]);
    for (int i = 0; i < 4; ++i) mine.d[i] = D[lane / 4 + i / 2 * 8][2 * (lane % 4) + i % 2];
  }
}

}  // namespace

template <typename T>
float4 mma(float4 d, uint4 a, uint2 b, Where where) {
  static constexpr Collective kMma = {"mma.sync", &complete<T>};
  Operands operands{{d.x, d.y, d.z, d.w}, {a.x, a.y, a.z, a.w}, {b.x, b.y}};
  warp_collective(kMma, &operands, where);
  return {operands.d[0], operands.d[1], operands.d[2], operands.d[3]};
}

template float4 mma<__half>(float4, uint4, uint2, Where);
template float4 mma<__nv_bfloat16>(float4, uint4, uint2, Where);
template float4 mma<__nv_fp8_e4m3>(float4, uint4, uint2, Where);
template float4 mma<__nv_fp8_e5m2>(float4, uint4, uint2, Where);

std::uint32_t movmatrix_trans(std::uint32_t rows, Where where) {
  // Row r, columns 2c and 2c + 1, are in lane 4r + c.
  static constexpr Collective kTranspose = {
      "movmatrix", [](void* const(&lanes)[32]) {
        std::uint32_t all[32];
        for (int lane = 0; lane < 32; ++lane) all[lane] = *static_cast<std::uint32_t*>(lanes[lane]);
        const auto element = [&](int row, int column) {
          return all[4 * row + column / 2] >> column % 2 * 16 & 0xffff;
        };
        for (int lane = 0; lane < 32; ++lane) {
          const int row = lane / 4, column = 2 * (lane % 4);
          *static_cast<std::uint32_t*>(lanes[lane]) =
              element(column, row) | element(column + 1, row) << 16;
        }
      }};
  warp_collective(kTranspose, &rows, where);
  return rows;
}

}  // namespace al::emulator
