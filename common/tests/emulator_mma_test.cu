// What a warp does together in the emulator: faults in mma.sync and ldmatrix, and what they count.
#include <array>

#include "common/emulator/access_log.hpp"
#include "common/launch.cuh"
#include "common/ptx/ldmatrix.cuh"
#include "common/ptx/mma.cuh"
#include "common/tests/emulator_checks.hpp"

namespace al {
namespace {

__global__ void half_a_warp(float* out, int lanes) {
  const std::uint32_t a[4] = {}, b[2] = {};
  float d[4] = {};
  if (static_cast<int>(threadIdx.x) < lanes) mma_m16n8k16<__half>(d, a, b);  // [half a warp]
  out[threadIdx.x] = d[0];
}

TEST_CASE("an mma that some lanes do not come to") {
  Array<float> out(64, "out");
  const auto run = [&](int lanes) {
    launch(half_a_warp, {"half_a_warp", dim3(1), dim3(64)}, out.data(), lanes);
  };
  CHECK_NOTHROW(run(32));
  expect_report({"warp call names a dead lane", "kernel:  half_a_warp, block (0,0,0)",
                 "waits in mma.sync at " + line("half a warp"), "has returned"},
                [&] { run(48); });
}

__global__ void two_types(float* out) {
  const std::uint32_t a[4] = {}, b[2] = {};
  float d[4] = {};
  const auto multiply = [&](auto type) { mma_m16n8k16<decltype(type)>(d, a, b); };
  threadIdx.x % 2 == 0 ? multiply(__half{}) : multiply(__nv_bfloat16{});
  out[threadIdx.x] = d[0];
}

TEST_CASE("lanes in different mma") {
  Array<float> out(32, "out");
  expect_report({"divergent warp call", "mma.sync"}, [&] {
    launch(two_types, {"two_types", dim3(1), dim3(32)}, out.data());
  });
}

// Each lane writes a row, then all load four 8 x 8 matrices from `offset` elements into the rows.
template <int COLUMNS>
__global__ void load_rows(std::uint32_t* out, int offset, bool forget_sync) {
  SharedArena shared;
  auto& tile = shared.take<std::uint16_t[32][COLUMNS]>("tile");
  const int lane = threadIdx.x;
  for (int i = 0; i < COLUMNS; ++i) tile[lane][i] = 0;
  __syncwarp();
  for (int i = 0; i < COLUMNS; ++i) tile[(lane + 1) % 32][i] = 1;  // [row write]
  if (!forget_sync) __syncwarp();
  std::uint32_t r[4];
  ldmatrix_x4(r, &tile[lane][offset]);  // [row read]
  out[lane] = r[0] + r[1] + r[2] + r[3];
}

template <int COLUMNS>
Counts run_load_rows(int offset = 0, bool forget_sync = false) {
  Array<std::uint32_t> out(32, "out");
  emulator::take_counts();
  launch(load_rows<COLUMNS>,
         {"load_rows", dim3(1), dim3(32), shared_bytes<std::uint16_t[32][COLUMNS]>()}, out.data(),
         offset, forget_sync);
  for (const std::uint32_t sum : out.host()) CHECK(sum == 0x00040004);
  return emulator::take_counts();
}

TEST_CASE("ldmatrix takes a pass for each conflict among the 8 rows of a matrix" NEEDS_HOOKS) {
  const auto passes = [](const Counts& counts, int columns) {
    // Without the stores: a row of `columns` 16-bit elements, twice, by a lane each.
    std::array<std::uint32_t, 32> address;
    for (int lane = 0; lane < 32; ++lane) address[lane] = 2 * columns * lane;
    return counts.shared_wavefronts - 2 * columns * emulator::wavefronts(address, 0xffffffff, 2);
  };
  CHECK(passes(run_load_rows<8>(), 8) == 4);        // rows of 16 bytes: 128 in a row
  CHECK(passes(run_load_rows<64>(), 64) == 4 * 8);  // of 128: all in the same banks
  CHECK(passes(run_load_rows<72>(), 72) == 4);      // of 144: padded
  CHECK(passes(run_load_rows<16>(), 16) == 4 * 2);  // of 32: every other row
}

TEST_CASE("faults in the rows of an ldmatrix" NEEDS_HOOKS) {
  expect_report({"race in shared memory", "kernel:  load_rows, block (0,0,0)", "tile, element",
                 line("row write"), line("row read"), "needs a __syncwarp()"},
                [] { run_load_rows<64>(0, true); });
  expect_report({"overrun of a shared array", "past the end of tile", line("row read")},
                [] { run_load_rows<64>(64); });
}

TEST_CASE("a misaligned ldmatrix") {
  expect_report({"misaligned ldmatrix", "kernel:  load_rows, block (0,0,0)", line("row read")},
                [] { run_load_rows<64>(4); });
}

__global__ void loads_from_global(const std::uint16_t* in, std::uint32_t* out) {
  std::uint32_t r[2];
  ldmatrix_x2(r, in);
  out[threadIdx.x] = r[0];
}

TEST_CASE("an ldmatrix from global memory") {
  Array<std::uint16_t> in(std::vector<std::uint16_t>(256), "in");
  Array<std::uint32_t> out(32, "out");
  expect_report({"ldmatrix of something else than shared memory", "loads_from_global"}, [&] {
    launch(loads_from_global, {"loads_from_global", dim3(1), dim3(32)},
           static_cast<const std::uint16_t*>(in.data()), out.data());
  });
}

}  // namespace
}  // namespace al
