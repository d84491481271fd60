// cp.async in the emulator: copies that have not happened until they are waited for.
#include <cmath>

#include "common/launch.cuh"
#include "common/ptx/cp_async.cuh"
#include "common/tests/emulator_checks.hpp"

namespace al {
namespace {

// Sums the rows of in [tiles, 32 * 4]: the next row is on its way while this one is added.
// `newer`: groups that may stay on their way; 1 is right.
template <int NEWER>
__global__ void pipeline(const float* in, float* out, int tiles) {
  SharedArena shared;
  auto& stage = shared.take<float[2][32 * 4]>("stage");
  const int t = threadIdx.x;
  const auto load = [&](int tile) {
    if (tile >= tiles) return cp_async_commit();
    cp_async_16(&stage[tile % 2][4 * t], in + tile * 128 + 4 * t);  // [pipeline copy]
    cp_async_commit();
  };
  float sum = 0;
  load(0);
  for (int tile = 0; tile < tiles; ++tile) {
    load(tile + 1);
    cp_async_wait<NEWER>();  // [pipeline wait]
    __syncthreads();         // everyone's part of this tile has arrived
    for (int i = 0; i < 4; ++i) sum += stage[tile % 2][t + 32 * i];  // [pipeline read]
    __syncthreads();  // all have read it: the next load may overwrite
  }
  out[t] = sum;
}

TEST_CASE("a cp.async pipeline") {
  under_seeds([] {
    Array<float> in(iota<float>(5 * 128), "in"), out(32, "out");
    launch(pipeline<1>, {"pipeline", dim3(1), dim3(32), shared_bytes<float[2][128]>()},
           static_cast<const float*>(in.data()), out.data(), 5);
    for (int t = 0; t < 32; ++t) {
      float sum = 0;
      for (int i = 0; i < 20; ++i) sum += static_cast<float>(t + 32 * i);
      CHECK(out.host()[t] == sum);
    }
  });
}

__global__ void zero_fill(const float* in, float* out) {
  SharedArena shared;
  auto& row = shared.take<float[8]>("row");
  cp_async_16(&row[0], in, 12);
  cp_async_16(&row[4], nullptr, 0);
  cp_async_commit();
  cp_async_wait<0>();
  for (int i = 0; i < 8; ++i) out[i] = row[i];
}

TEST_CASE("cp.async fills with zeros what it does not read") {
  Array<float> in(std::vector<float>{1, 2, 3, 4}, "in"), out(8, "out");
  launch(zero_fill, {"zero_fill", dim3(1), dim3(1), shared_bytes<float[8]>()},
         static_cast<const float*>(in.data()), out.data());
  CHECK(out.host() == std::vector<float>{1, 2, 3, 0, 0, 0, 0, 0});
}

TEST_CASE("a read before the cp.async wait" NEEDS_HOOKS) {
  Array<float> in(iota<float>(5 * 128), "in"), out(32, "out");
  expect_report({"cp.async is on its way", "kernel:  pipeline, block (0,0,0)", "thread (",
                 "stage, element", line("pipeline read"), line("pipeline copy"),
                 "last by cp_async_wait<2>() at ", line("pipeline wait")},
                [&] {
                  launch(pipeline<2>,
                         {"pipeline", dim3(1), dim3(32), shared_bytes<float[2][128]>()},
                         static_cast<const float*>(in.data()), out.data(), 5);
                });
}

TEST_CASE("without the hooks, what cp.async has not brought yet is poison") {
  Array<float> in(iota<float>(5 * 128), "in"), out(32, "out");
  try {
    launch(pipeline<2>, {"pipeline", dim3(1), dim3(32), shared_bytes<float[2][128]>()},
           static_cast<const float*>(in.data()), out.data(), 5);
  } catch (const Error&) {
    return;  // the hooks found it
  }
  for (const float x : out.host()) CHECK(std::isnan(x));
}

__global__ void copies_from(const float* in, int offset) {
  SharedArena shared;
  auto& row = shared.take<float[4]>("row");
  cp_async_16(&row[0], in + offset);  // [misaligned copy]
  cp_async_commit();
  cp_async_wait<0>();
}

TEST_CASE("a misaligned cp.async") {
  Array<float> in(iota<float>(16), "in");
  expect_report({"misaligned cp.async", "kernel:  copies_from, block (0,0,0)", "thread (0,0,0)",
                 "16 bytes from an address", line("misaligned copy")},
                [&] {
                  launch(copies_from, {"copies_from", dim3(1), dim3(1), shared_bytes<float[4]>()},
                         static_cast<const float*>(in.data()), 2);
                });
}

}  // namespace
}  // namespace al
