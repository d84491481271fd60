// Warps in the emulator: shuffles, votes and __syncwarp, right and wrong.

#include "common/launch.cuh"
#include "common/tests/emulator_checks.hpp"

namespace al {
namespace {

// --- kernels that are right ----------------------------------------------------------------------

__global__ void shuffles(int* out) {
  const int lane = threadIdx.x;
  out[lane] = __shfl_sync(0xffffffff, lane * 10, 3);
  out[32 + lane] = __shfl_sync(0xffffffff, lane, 9, 8);  // lane 9 % 8 of each group of 8
  out[64 + lane] = __shfl_up_sync(0xffffffff, lane, 2);
  out[96 + lane] = __shfl_down_sync(0xffffffff, lane, 4, 8);
  out[128 + lane] = __shfl_xor_sync(0xffffffff, lane, 16);
  out[160 + lane] = static_cast<int>(
      __half2float(__shfl_xor_sync(0xffffffff, __float2half(static_cast<float>(lane)), 1)));
  out[192 + lane] = static_cast<int>(__shfl_sync(0xffffffff, lane * 0.5, 30) * 2);
  out[224 + lane] = -1;
  if (lane < 8) {  // the others go on
    int sum = lane;
    for (int step = 4; step > 0; step /= 2) sum += __shfl_xor_sync(0xff, sum, step);
    out[224 + lane] = sum;
  }
}

TEST_CASE("shuffles move values as CUDA says") {
  under_seeds([] {
    Array<int> out(256, "out");
    emulator::take_counts();
    launch(shuffles, {"shuffles", dim3(1), dim3(32)}, out.data());
    CHECK(emulator::take_counts().shuffles == 7 + 3);
    const std::vector<int> got = out.host();
    for (int lane = 0; lane < 32; ++lane) {
      CHECK(got[lane] == 30);
      CHECK(got[32 + lane] == lane / 8 * 8 + 1);
      CHECK(got[64 + lane] == (lane < 2 ? lane : lane - 2));
      CHECK(got[96 + lane] == (lane % 8 < 4 ? lane + 4 : lane));
      CHECK(got[128 + lane] == (lane ^ 16));
      CHECK(got[160 + lane] == (lane ^ 1));
      CHECK(got[192 + lane] == 30);
      CHECK(got[224 + lane] == (lane < 8 ? 28 : -1));
    }
  });
}

__global__ void votes(int* out) {
  const int t = threadIdx.x;
  int* mine = out + 6 * t;
  mine[0] = static_cast<int>(__ballot_sync(0xffffffff, t % 2));
  mine[1] = __any_sync(0xffffffff, t == 40);
  mine[2] = __all_sync(0xffffffff, t < 32);
  mine[3] = __syncthreads_count(t < 5);
  mine[4] = __syncthreads_or(t == 63);
  mine[5] = __syncthreads_and(t < 63);
}

TEST_CASE("votes of a warp and of a block") {
  under_seeds([] {
    Array<int> out(6 * 64, "out");
    launch(votes, {"votes", dim3(1), dim3(64)}, out.data());
    const std::vector<int> got = out.host();
    for (int t = 0; t < 64; ++t) {
      CHECK(static_cast<unsigned>(got[6 * t]) == 0xaaaaaaaa);
      CHECK(got[6 * t + 1] == (t >= 32));
      CHECK(got[6 * t + 2] == (t < 32));
      CHECK(got[6 * t + 3] == 5);
      CHECK(got[6 * t + 4] == 1);
      CHECK(got[6 * t + 5] == 0);
    }
  });
}

__global__ void warp_exchange(const int* in, int* out, bool forget_sync) {
  SharedArena shared;
  auto& slot = shared.take<int[2][32]>("slot");
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  slot[warp][lane] = in[threadIdx.x];  // [exchange write]
  if (!forget_sync) __syncwarp();
  out[threadIdx.x] = slot[warp][31 - lane];  // [exchange read]
  __syncwarp(0xffffffff);                    // all have read
  slot[warp][lane] = 0;
}

TEST_CASE("__syncwarp orders the shared memory of a warp") {
  under_seeds([] {
    Array<int> in(iota<int>(64), "in"), out(64, "out");
    launch(warp_exchange, {"warp_exchange", dim3(1), dim3(64), shared_bytes<int[2][32]>()},
           in.data(), out.data(), false);
    for (int t = 0; t < 64; ++t) CHECK(out.host()[t] == (t < 32 ? 31 - t : 95 - t));
  });
}

// --- planted faults ------------------------------------------------------------------------------

TEST_CASE("a missing __syncwarp" NEEDS_HOOKS) {
  Array<int> in(iota<int>(64), "in"), out(64, "out");
  expect_report(
      {"kernel:  warp_exchange, block (0,0,0)", "slot, element ", line("exchange read")}, [&] {
        launch(warp_exchange, {"warp_exchange", dim3(1), dim3(64), shared_bytes<int[2][32]>()},
               in.data(), out.data(), true);
      });
}

__global__ void shuffle_is_no_sync(int* out) {
  SharedArena shared;
  auto& slot = shared.take<int[32]>("slot");
  slot[threadIdx.x] = 0;
  __syncwarp();
  slot[threadIdx.x] = threadIdx.x;
  const int next = __shfl_down_sync(0xffffffff, static_cast<int>(threadIdx.x), 1);
  out[threadIdx.x] = slot[next];
}

TEST_CASE("a shuffle orders no memory" NEEDS_HOOKS) {
  Array<int> out(32, "out");
  expect_report({"race in shared memory", "shuffle_is_no_sync", "needs a __syncwarp()"}, [&] {
    launch(shuffle_is_no_sync, {"shuffle_is_no_sync", dim3(1), dim3(32), shared_bytes<int[32]>()},
           out.data());
  });
}

__global__ void dead_lane(int* out) {
  if (threadIdx.x == 37) return;
  out[threadIdx.x] = __shfl_xor_sync(0xffffffff, 1, 1);  // [dead lane]
}

TEST_CASE("a shuffle that names a dead lane") {
  Array<int> out(64, "out");
  expect_report(
      {"names a dead lane", "kernel:  dead_lane, block (0,0,0)", "thread (", "__shfl_xor_sync",
       line("dead lane"), "thread (37,0,0), lane 5 of warp 1", "has returned", "early return"},
      [&] {
        launch(dead_lane, {"dead_lane", dim3(1), dim3(64)}, out.data());
      });
}

__global__ void lane_outside_mask(int* out) {
  out[threadIdx.x] = __shfl_sync(0xffff, 1, 0);  // [outside mask]
}

__global__ void source_outside_mask(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0xffff, 1, 16 + threadIdx.x);
}

__global__ void two_shuffles(int* out) {
  if (threadIdx.x < 16) {
    out[threadIdx.x] = __shfl_sync(0xffffffff, 1, 0);  // [one]
  } else {
    out[threadIdx.x] = __shfl_sync(0xffffffff, 2, 0);  // [other]
  }
}

__global__ void shuffle_beside_barrier(int* out) {
  if (threadIdx.x < 16) {
    out[threadIdx.x] = __shfl_sync(0xffffffff, 1, 0);  // [beside]
  } else {
    __syncthreads();  // [barrier]
  }
}

TEST_CASE("masks that say something else than the lanes do") {
  Array<int> out(32, "out");
  expect_report(
      {"lane outside its own mask", "lane_outside_mask", "0x0000ffff", line("outside mask")}, [&] {
        launch(lane_outside_mask, {"lane_outside_mask", dim3(1), dim3(32)}, out.data());
      });
  expect_report({"takes no part", "source_outside_mask", "reads lane"}, [&] {
    launch(source_outside_mask, {"source_outside_mask", dim3(1), dim3(32)}, out.data());
  });
  expect_report({"divergent warp call", "two_shuffles", line("one"), line("other")}, [&] {
    launch(two_shuffles, {"two_shuffles", dim3(1), dim3(32)}, out.data());
  });
  expect_report({"divergent warp call", line("beside"), line("barrier")}, [&] {
    launch(shuffle_beside_barrier, {"shuffle_beside_barrier", dim3(1), dim3(32)}, out.data());
  });
  expect_report({"names a lane that does not exist", "no lane 31"}, [&] {
    launch(shuffles, {"shuffles", dim3(1), dim3(31)}, out.data());
  });
}

}  // namespace
}  // namespace al
