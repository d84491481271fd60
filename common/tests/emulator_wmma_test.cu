// nvcuda::wmma in the emulator: it multiplies as CUDA says, in whatever lanes the elements lie; and
// the faults that WMMA invites.
#include <cmath>

#include "common/launch.cuh"
#include "common/ptx/wmma.cuh"
#include "common/tests/emulator_checks.hpp"

namespace al {
namespace {

using namespace nvcuda::wmma;

using C = fragment<accumulator, 16, 16, 16, float>;
template <typename T>
using A = fragment<matrix_a, 16, 16, 16, T, row_major>;

// Calls run() with the elements of fragments in no GPU's order, then in that of sm_80.
template <typename Run>
void in_both_orders(Run run) {
  for (const bool gpu : {false, true}) {
    emulator::settings().gpu_fragments = gpu;
    CAPTURE(gpu);
    run();
  }
  emulator::settings().gpu_fragments = false;
}

// out [16, 16] = A B + C, with A, B and C in shared memory. B_COLUMNS: B lies there column by
// column.
template <typename T, bool B_COLUMNS>
__global__ void multiply(float* out) {
  using Layout = std::conditional_t<B_COLUMNS, col_major, row_major>;
  SharedArena shared;
  auto& A_smem = shared.take<T[16][24]>("A_smem");
  auto& B_smem = shared.take<T[16][24]>("B_smem");
  auto& C_smem = shared.take<float[16][20]>("C_smem");
  for (int i = threadIdx.x; i < 256; i += 32) {
    const int r = i / 16, c = i % 16;
    A_smem[r][c] = T(float(r - 2 * c));
    B_smem[B_COLUMNS ? c : r][B_COLUMNS ? r : c] = T(float(3 * r + c));
    C_smem[r][c] = 1000 * r + c;
  }
  __syncwarp();
  A<T> a;
  fragment<matrix_b, 16, 16, 16, T, Layout> b;
  C c;
  load_matrix_sync(a, &A_smem[0][0], 24);
  load_matrix_sync(b, &B_smem[0][0], 24);
  load_matrix_sync(c, &C_smem[0][0], 20, mem_row_major);
  mma_sync(c, a, b, c);
  for (int e = 0; e < c.num_elements; ++e) c.x[e] *= 2;
  __syncwarp();
  store_matrix_sync(&C_smem[0][0], c, 20, mem_col_major);
  __syncwarp();
  for (int i = threadIdx.x; i < 256; i += 32) out[i] = C_smem[i % 16][i / 16];
}

template <typename T, bool B_COLUMNS>
int wrong_products() {
  Array<float> out(256, "out");
  launch(multiply<T, B_COLUMNS>,
         {"multiply", dim3(1), dim3(32), shared_bytes<T[16][24], T[16][24], float[16][20]>()},
         out.data());
  int wrong = 0;
  for (int r = 0; r < 16; ++r) {
    for (int c = 0; c < 16; ++c) {
      int sum = 1000 * r + c;
      for (int k = 0; k < 16; ++k) sum += (r - 2 * k) * (3 * k + c);
      wrong += out.host()[16 * r + c] != static_cast<float>(2 * sum);
    }
  }
  return wrong;
}

TEST_CASE("WMMA multiplies and adds, wherever the elements lie") {
  in_both_orders([] {
    CHECK(wrong_products<__half, false>() == 0);
    CHECK(wrong_products<__half, true>() == 0);
    CHECK(wrong_products<__nv_bfloat16, false>() == 0);
    CHECK(wrong_products<__nv_bfloat16, true>() == 0);
  });
}

// ldm = 0: every column of the accumulator is the same one.
__global__ void one_column(float* out) {
  SharedArena shared;
  auto& column = shared.take<float[16]>("column");
  auto& tile = shared.take<float[16][16]>("tile");
  if (threadIdx.x < 16) column[threadIdx.x] = threadIdx.x;
  __syncwarp();
  C c;
  load_matrix_sync(c, column, 0, mem_col_major);
  store_matrix_sync(&tile[0][0], c, 16, mem_row_major);
  __syncwarp();
  for (int i = threadIdx.x; i < 256; i += 32) out[i] = tile[i / 16][i % 16];
}

TEST_CASE("a column loaded with ldm = 0 is there 16 times") {
  in_both_orders([] {
    Array<float> out(256, "out");
    launch(one_column, {"one_column", dim3(1), dim3(32), shared_bytes<float[16], float[16][16]>()},
           out.data());
    int wrong = 0;
    for (int i = 0; i < 256; ++i) wrong += out.host()[i] != static_cast<float>(i / 16);
    CHECK(wrong == 0);
  });
}

// Believes that elements 0, 1, 4 and 5 of a lane are in row lane / 4, and the others 8 rows below.
__global__ void believes_in_an_order(float* out) {
  SharedArena shared;
  auto& tile = shared.take<float[16][16]>("tile");
  for (int i = threadIdx.x; i < 256; i += 32) tile[i / 16][i % 16] = i / 16;
  __syncwarp();
  C c;
  load_matrix_sync(c, &tile[0][0], 16, mem_row_major);
  int wrong = 0;
  for (int e = 0; e < 8; ++e) wrong += c.x[e] != threadIdx.x / 4 + e / 2 % 2 * 8;
  out[threadIdx.x] = wrong;
}

TEST_CASE("a kernel that believes in an order of the elements is right only where it holds") {
  Array<float> out(32, "out");
  const auto wrong = [&] {
    launch(believes_in_an_order,
           {"believes_in_an_order", dim3(1), dim3(32), shared_bytes<float[16][16]>()}, out.data());
    float sum = 0;
    for (const float x : out.host()) sum += x;
    return sum;
  };
  CHECK(wrong() > 128);
  emulator::settings().gpu_fragments = true;
  CHECK(wrong() == 0);
  emulator::settings().gpu_fragments = false;
}

// --- planted faults ------------------------------------------------------------------------------

struct Plant {
  int lanes = 32;            // that come to the load
  int begin = 0, ldm = 16;   // of the matrix, in elements
  bool forget_sync = false;  // between the writes and the load
  bool forget_fill = false;
};

__global__ void loads_tile(float* out, Plant plant) {
  SharedArena shared;
  auto& tile = shared.take<__half[16][64]>("tile");
  for (int i = threadIdx.x; i < 1024; i += 32) tile[i / 64][i % 64] = __half(0.0f);
  __syncwarp();
  for (int i = threadIdx.x; i < 1024; i += 32) tile[i / 64][i % 64] = __half(1.0f);  // [tile write]
  if (!plant.forget_sync) __syncwarp();
  A<__half> a;
  fragment<matrix_b, 16, 16, 16, __half, row_major> b;
  C c;
  if (!plant.forget_fill) fill_fragment(c, 0.0f);
  fill_fragment(b, __half(1.0f));
  if (static_cast<int>(threadIdx.x) < plant.lanes) {
    load_matrix_sync(a, &tile[0][0] + plant.begin, plant.ldm);  // [tile load]
  }
  mma_sync(c, a, b, c);
  out[threadIdx.x] = c.x[0];
}

std::vector<float> load_tile(const Plant& plant) {
  Array<float> out(32, "out");
  launch(loads_tile, {"loads_tile", dim3(1), dim3(32), shared_bytes<__half[16][64]>()}, out.data(),
         plant);
  return out.host();
}

TEST_CASE("an accumulator that nobody filled is NaN") {
  for (const float x : load_tile({})) CHECK(x == 16);
  for (const float x : load_tile({.forget_fill = true})) CHECK(std::isnan(x));
}

TEST_CASE("a fragment that some lanes do not load") {
  expect_report({"divergent warp call", "load_matrix_sync", line("tile load"), "mma_sync"},
                [] { load_tile({.lanes = 20}); });
}

TEST_CASE("matrices that begin or step where they must not") {
  expect_report({"misaligned load_matrix_sync", "kernel:  loads_tile, block (0,0,0)",
                 line("tile load"), "8 bytes past a multiple of 32"},
                [] { load_tile({.begin = 4}); });
  expect_report({"misaligned load_matrix_sync", line("tile load"), "ldm is 20 elements, 40 bytes"},
                [] { load_tile({.ldm = 20}); });
}

TEST_CASE("a load of what other lanes wrote, without a __syncwarp" NEEDS_HOOKS) {
  expect_report({"race in shared memory", "kernel:  loads_tile", line("tile write"),
                 line("tile load"), "needs a __syncwarp()"},
                [] { load_tile({.forget_sync = true}); });
}

TEST_CASE("a matrix that reaches beyond its array" NEEDS_HOOKS) {
  expect_report({"overrun of a shared array", "past the end of tile", line("tile load")},
                [] { load_tile({.ldm = 72}); });
}

__global__ void stores_tile(float* out, bool forget_sync) {
  SharedArena shared;
  auto& tile = shared.take<float[16][24]>("tile");
  C c;
  fill_fragment(c, 5.0f);
  store_matrix_sync(&tile[0][0], c, 24, mem_row_major);  // [tile store]
  if (!forget_sync) __syncwarp();
  out[threadIdx.x] = tile[15 - threadIdx.x / 2][threadIdx.x % 2];  // [tile read]
}

TEST_CASE("a read of what store_matrix_sync wrote, without a __syncwarp" NEEDS_HOOKS) {
  Array<float> out(32, "out");
  const auto run = [&](bool forget) {
    launch(stores_tile, {"stores_tile", dim3(1), dim3(32), shared_bytes<float[16][24]>()},
           out.data(), forget);
  };
  CHECK_NOTHROW(run(false));
  expect_report({"race in shared memory", line("tile store"), line("tile read")},
                [&] { run(true); });
}

// --- what is counted -----------------------------------------------------------------------------

template <int COLUMNS>
__global__ void loads_a(int loads) {
  SharedArena shared;
  auto& tile = shared.take<__half[16 * COLUMNS]>("tile");
  for (int i = threadIdx.x; i < 16 * COLUMNS; i += 32) tile[i] = __half(0.0f);
  __syncwarp();
  A<__half> a;
  for (int i = 0; i < loads; ++i) load_matrix_sync(a, tile, COLUMNS);
}

template <int COLUMNS>
__global__ void stores_c(int stores) {
  SharedArena shared;
  auto& tile = shared.take<float[16][COLUMNS]>("tile");
  C c;
  fill_fragment(c, 0.0f);
  for (int i = 0; i < stores; ++i) store_matrix_sync(&tile[0][0], c, COLUMNS, mem_row_major);
}

// Of one load or store.
std::int64_t passes(void (*kernel)(int), std::size_t bytes) {
  const auto with = [&](int times) {
    emulator::take_counts();
    launch(kernel, {"counted", dim3(1), dim3(32), bytes}, times);
    return emulator::take_counts().shared_wavefronts;
  };
  return with(1) - with(0);
}

TEST_CASE("bank conflicts of fragments, as an H200 has them" NEEDS_HOOKS) {
  const auto load = [&]<int COLUMNS>() {
    return passes(loads_a<COLUMNS>, shared_bytes<__half[16 * COLUMNS]>());
  };
  CHECK(load.operator()<72>() == 4);   // rows of 144 bytes: 512 bytes in 4 passes
  CHECK(load.operator()<64>() == 32);  // of 128: 8 rows in the same banks
  const auto store = [&]<int COLUMNS>() {
    return passes(stores_c<COLUMNS>, shared_bytes<float[16][COLUMNS]>());
  };
  CHECK(store.operator()<72>() == 8);   // 1024 bytes in 8 passes
  CHECK(store.operator()<68>() == 16);  // every other row meets
  CHECK(store.operator()<64>() == 32);  // 4 rows in the same banks
}

}  // namespace
}  // namespace al
