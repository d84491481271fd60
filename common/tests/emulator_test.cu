// The emulator: kernels that are right run clean in any order of their threads, and each planted
// fault is reported, in every order, with the kernel, the block, the thread and what to look at.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <string>
#include <vector>

#include "common/emulator/access_log.hpp"
#include "common/launch.cuh"
#include "common/ptx/cp_async.cuh"
#include "common/tests/emulator_checks.hpp"

namespace al {
namespace {

// --- kernels that are right ---------------------------------------------------------------------

__global__ void block_sum(const int* in, int* out) {
  SharedArena shared;
  auto& partial = shared.take<int[256]>("partial");
  const int t = threadIdx.x;
  partial[t] = in[blockIdx.x * 256 + t];
  for (int half = 128; half > 0; half /= 2) {
    __syncthreads();  // the larger half has been written
    if (t < half) partial[t] += partial[t + half];
  }
  if (t == 0) out[blockIdx.x] = partial[0];
}

TEST_CASE("barriers order shared memory") {
  under_seeds([] {
    Array<int> in(iota<int>(4 * 256), "in"), out(4, "out");
    emulator::take_counts();
    launch(block_sum, {"block_sum", dim3(4), dim3(256), shared_bytes<int[256]>()}, in.data(),
           out.data());
    for (int b = 0; b < 4; ++b) CHECK(out.host()[b] == 256 * 256 * b + 255 * 128);
    CHECK(emulator::take_counts().barriers == 4 * 8);
  });
}

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
    cp_async_wait<NEWER>();
    __syncthreads();  // everyone's part of this tile has arrived
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

// Each block announces its partial sum; the last one to do so adds them all.
__global__ void sum_by_last_block(float* partial, unsigned* arrived, float* out,
                                  bool forget_fence) {
  partial[blockIdx.x] = static_cast<float>(blockIdx.x);
  if (!forget_fence) __threadfence();
  if (atomicAdd(arrived, 1) == gridDim.x - 1) {
    float sum = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) sum += partial[b];  // [last block read]
    *out = sum;
  }
}

__global__ void atomics(int* sum, int* largest, unsigned* doubled, float* total) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(sum, i);
  atomicMax(largest, i);
  atomicAdd(total, 0.5);
  if (threadIdx.x == 0) {
    unsigned assumed, old = 1;
    do {
      assumed = old;
      old = atomicCAS(doubled, assumed, 2 * assumed);
    } while (old != assumed);
  }
}

TEST_CASE("atomics") {
  under_seeds([] {
    Array<int> sum(std::vector<int>{0}, "sum"), largest(std::vector<int>{-1}, "largest");
    Array<unsigned> doubled(std::vector<unsigned>{1}, "doubled");
    Array<float> total(std::vector<float>{0}, "total");
    launch(atomics, {"atomics", dim3(8), dim3(64)}, sum.data(), largest.data(), doubled.data(),
           total.data());
    CHECK(sum.host()[0] == 511 * 256);
    CHECK(largest.host()[0] == 511);
    CHECK(doubled.host()[0] == 256);
    CHECK(total.host()[0] == 256);
  });
}

TEST_CASE("a fence and an atomic hand data from block to block") {
  under_seeds([] {
    Array<float> partial(64, "partial"), out(1, "out");
    Array<unsigned> arrived(std::vector<unsigned>{0}, "arrived");
    launch(sum_by_last_block, {"sum_by_last_block", dim3(64), dim3(1)}, partial.data(),
           arrived.data(), out.data(), false);
    CHECK(out.host()[0] == 63 * 32);
  });
}

// --- what is counted -----------------------------------------------------------------------------

// Each thread loads 16 bytes of `in`; the warp reads a 32 x COLUMNS array by column.
template <int COLUMNS>
__global__ void transpose(const float* in, float* out) {
  SharedArena shared;
  auto& tile = shared.take<float[32][COLUMNS]>("tile");
  const int t = threadIdx.x;
  const float4 row = *reinterpret_cast<const float4*>(in + 4 * t);
  for (int i = 0; i < 32; ++i) tile[i][t] = row.x;
  __syncwarp();
  for (int i = 0; i < 32; ++i) out[32 * i + t] = tile[t][i];
}

template <int COLUMNS>
Counts count_transpose(int blocks) {
  Array<float> in(iota<float>(128), "in"), out(1024, "out");
  emulator::take_counts();
  launch(transpose<COLUMNS>,
         {"transpose", dim3(blocks), dim3(32), shared_bytes<float[32][COLUMNS]>()},
         static_cast<const float*>(in.data()), out.data());
  return emulator::take_counts();
}

TEST_CASE("bytes, sectors and bank conflicts" NEEDS_HOOKS) {
  const Counts conflicts = count_transpose<32>(1), padded = count_transpose<33>(1);
  CHECK(padded.global_load_bytes == 128 * 4);
  CHECK(padded.global_store_bytes == 1024 * 4);
  CHECK(padded.global_requests == 1 + 32);
  CHECK(padded.global_sectors == 16 + 32 * 4);
  CHECK(padded.shared_requests == 64);
  CHECK(padded.shared_wavefronts == 64);
  CHECK(conflicts.shared_wavefronts == 32 + 32 * 32);
  CHECK(padded.checked_blocks == 1);
}

// What the other blocks write must not be the same memory: this one has a row each.
__global__ void copy_rows(const float* in, float* out) {
  for (int i = 0; i < 300; ++i) out[(blockIdx.x * 300 + i) * 32 + threadIdx.x] = in[threadIdx.x];
}

TEST_CASE("long loops and many blocks are counted in part and scaled" NEEDS_HOOKS) {
  const auto before = emulator::settings();
  emulator::settings().checked_blocks = 4;
  Array<float> in(iota<float>(32), "in"), out(20 * 300 * 32, "out");
  emulator::take_counts();
  launch(copy_rows, {"copy_rows", dim3(20), dim3(32)}, static_cast<const float*>(in.data()),
         out.data());
  emulator::settings() = before;
  const Counts counts = emulator::take_counts();
  CHECK(counts.blocks == 20);
  CHECK(counts.checked_blocks < 20);
  CHECK(counts.global_store_bytes == 20 * 300 * 128);
  CHECK(counts.global_requests == counts.global_sectors / 4);
  CHECK(counts.global_sectors == 20 * (300 + 300) * 4);
}

// --- planted faults ------------------------------------------------------------------------------

__global__ void neighbour(int* out, bool forget_sync) {
  SharedArena shared;
  auto& values = shared.take<int[64]>("values");
  values[threadIdx.x] = threadIdx.x;  // [neighbour write]
  if (!forget_sync) __syncthreads();
  out[blockIdx.x * 64 + threadIdx.x] = values[63 - threadIdx.x];  // [neighbour read]
}

TEST_CASE("a missing __syncthreads" NEEDS_HOOKS) {
  Array<int> out(128, "out");
  const auto run = [&](bool forget) {
    launch(neighbour, {"neighbour", dim3(2), dim3(64), shared_bytes<int[64]>()}, out.data(),
           forget);
  };
  CHECK_NOTHROW(run(false));
  // Who is first, the writer or the reader, depends on the seed: a reader in front finds nothing
  // written.
  expect_report(
      {"kernel:  neighbour, block (", "thread (", "values, element ", line("neighbour read")},
      [&] { run(true); });
}

// The same with memory that has been written before: then it is a race whoever is first.
__global__ void second_round(int* out) {
  SharedArena shared;
  auto& values = shared.take<int[64]>("values");
  values[threadIdx.x] = 0;
  __syncthreads();  // all of it is written
  values[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = values[63 - threadIdx.x];
}

TEST_CASE("a race is a race in every order" NEEDS_HOOKS) {
  Array<int> out(64, "out");
  expect_report({"race in shared memory", "kernel:  second_round, block (0,0,0)", "earlier: thread",
                 "needs a __syncthreads()"},
                [&] {
                  launch(second_round, {"second_round", dim3(1), dim3(64), shared_bytes<int[64]>()},
                         out.data());
                });
}

// Between the sum of one round and the values of the next.
__global__ void write_after_read(int* out) {
  SharedArena shared;
  auto& value = shared.take<int[1]>("value");
  for (int round = 0; round < 2; ++round) {
    if (threadIdx.x == 0) value[0] = round;  // [war write]
    __syncthreads();                         // the value is there
    out[threadIdx.x] = value[0];             // [war read]
  }
}

TEST_CASE("a missing barrier at the end of a loop" NEEDS_HOOKS) {
  Array<int> out(64, "out");
  expect_report(
      {"race in shared memory", "kernel:  write_after_read", "value, element 0", line("war write")},
      [&] {
        launch(write_after_read, {"write_after_read", dim3(1), dim3(64), shared_bytes<int[1]>()},
               out.data());
      });
}

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

TEST_CASE("a read before the cp.async wait" NEEDS_HOOKS) {
  Array<float> in(iota<float>(5 * 128), "in"), out(32, "out");
  expect_report(
      {"cp.async is on its way", "kernel:  pipeline, block (0,0,0)", "thread (", "stage, element",
       line("pipeline read"), line("pipeline copy"), "cp_async_wait<N>"},
      [&] {
        launch(pipeline<2>, {"pipeline", dim3(1), dim3(32), shared_bytes<float[2][128]>()},
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

__global__ void divergent_barrier(int* out) {
  if (threadIdx.x < 40) {
    __syncthreads();  // [left]
    out[threadIdx.x] = 1;
  } else {
    __syncthreads();  // [right]
  }
}

TEST_CASE("a divergent barrier") {
  Array<int> out(64, "out");
  expect_report({"divergent barrier", "kernel:  divergent_barrier, block (0,0,0)",
                 "thread (0,0,0) waits at " + line("left"),
                 "thread (40,0,0) waits at " + line("right"), "look at:"},
                [&] {
                  launch(divergent_barrier, {"divergent_barrier", dim3(1), dim3(64)}, out.data());
                });
}

__global__ void early_return(int* out, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  __syncthreads();  // [after return]
  out[i] = i;
}

TEST_CASE("a thread that has returned before a barrier") {
  Array<int> out(128, "out");
  expect_report({"exited thread at a barrier", "kernel:  early_return, block (1,0,0)",
                 "thread (0,0,0) waits at " + line("after return"), "thread (36,0,0) has returned"},
                [&] {
                  launch(early_return, {"early_return", dim3(2), dim3(64)}, out.data(), 100);
                });
}

__global__ void overrun(int* out, int last) {
  SharedArena shared;
  auto& first = shared.take<int[40]>("first");
  auto& second = shared.take<int[40]>("second");
  second[threadIdx.x] = 7;
  int* pointer = first;
  for (int i = 0; i <= last; ++i) pointer[i] = i;  // [overrun]
  out[threadIdx.x] = second[threadIdx.x];
}

TEST_CASE("an overrun of one shared array into the next" NEEDS_HOOKS) {
  Array<int> out(1, "out");
  const auto run = [&](int last) {
    launch(overrun, {"overrun", dim3(1), dim3(1), shared_bytes<int[40], int[40]>()}, out.data(),
           last);
  };
  CHECK_NOTHROW(run(39));
  expect_report({"overrun of a shared array", "kernel:  overrun, block (0,0,0)", "thread (0,0,0)",
                 "past the end of first (160 bytes)", line("overrun")},
                [&] { run(40); });
}

TEST_CASE("AddressSanitizer finds the overrun" ONLY_WITH_ASAN) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    Array<int> out(1, "out");
    launch(overrun, {"overrun", dim3(1), dim3(1), shared_bytes<int[40], int[40]>()}, out.data(),
           40);
    _exit(0);
  }
  close(ends[1]);
  std::string text;
  char piece[4096];
  for (ssize_t n; (n = read(ends[0], piece, sizeof piece)) > 0;) text.append(piece, n);
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(status != 0);
  CHECK(text.find("AddressSanitizer: use-after-poison") != std::string::npos);
  CHECK(text.find("overrun") != std::string::npos);
}

__global__ void takes_too_much(int* out) {
  SharedArena shared;
  auto& first = shared.take<int[64]>("first");
  auto& second = shared.take<int[64]>("second");
  first[0] = second[0] = 0;
  *out = first[0] + second[0];
}
__global__ void takes_differ(int* out) {
  SharedArena shared;
  if (threadIdx.x == 0) {
    shared.take<int[1]>("one")[0] = 0;
  } else {
    shared.take<int[2]>("two")[0] = 0;
  }
  *out = 0;
}

TEST_CASE("shared memory that was not asked for") {
  Array<int> out(1, "out");
  expect_report({"more shared memory taken than launched with", "takes_too_much", "second",
                 "512 bytes, the launch asks for 256"},
                [&] {
                  launch(takes_too_much, {"takes_too_much", dim3(1), dim3(1), 256}, out.data());
                });
  expect_report({"threads disagree about shared memory"}, [&] {
    launch(takes_differ, {"takes_differ", dim3(1), dim3(2), 256}, out.data());
  });
}

__global__ void skips_one(float* out, int skipped) {
  if (static_cast<int>(threadIdx.x) != skipped) out[threadIdx.x] = 1;
}
__global__ void adds_up(const float* in, float* out) { out[threadIdx.x] += in[threadIdx.x]; }

TEST_CASE("an element that a kernel forgets to write stays poison") {
  Array<float> out(64, "out");
  launch(skips_one, {"skips_one", dim3(1), dim3(64)}, out.data(), 17);
  for (int i = 0; i < 64; ++i) CHECK(std::isnan(out.host()[i]) == (i == 17));
}

TEST_CASE("the next kernel that reads it is reported" NEEDS_HOOKS) {
  Array<float> scores(64, "scores"), out(std::vector<float>(64), "out");
  expect_report({"read of unwritten global memory", "kernel:  adds_up, block (0,0,0)",
                 "thread (17,0,0)", "scores, element 17"},
                [&] {
                  scores.buffer.poison();
                  launch(skips_one, {"skips_one", dim3(1), dim3(64)}, scores.data(), 17);
                  launch(adds_up, {"adds_up", dim3(1), dim3(64)},
                         static_cast<const float*>(scores.data()), out.data());
                });
}

__global__ void reads_at(const float* in, float* out, int i) { *out = in[i]; }
__global__ void writes_at(float* out, int i) { out[i] = 1; }

TEST_CASE("global memory outside the buffers" NEEDS_HOOKS) {
  Array<float> in(iota<float>(100), "in"), out(100, "out");
  const auto reads = [&](int i) {
    launch(reads_at, {"reads_at", dim3(1), dim3(1)}, static_cast<const float*>(in.data()),
           out.data(), i);
  };
  CHECK_NOTHROW(reads(99));
  expect_report({"access outside global memory", "kernel:  reads_at, block (0,0,0)",
                 "thread (0,0,0) reads 4 bytes", "4 bytes after the end of in (400 bytes)"},
                [&] { reads(100); });
  expect_report({"thread (0,0,0) reads 4 bytes", "4 bytes before in"}, [&] { reads(-1); });
  expect_report(
      {"kernel:  writes_at", "thread (0,0,0) writes 4 bytes", "after the end of out (400 bytes)"},
      [&] {
        launch(writes_at, {"writes_at", dim3(1), dim3(1)}, out.data(), 101);
      });
  float on_host = 0;
  expect_report({"access outside global memory"}, [&] {
    launch(writes_at, {"writes_at", dim3(1), dim3(1)}, &on_host, 0);
  });
}

__global__ void all_write_one(float* out) { out[0] = static_cast<float>(blockIdx.x); }  // [all]
__global__ void read_what_others_write(float* out) {
  if (blockIdx.x == 0) {
    out[0] = 1;
  } else {
    out[blockIdx.x] = out[0];
  }
}

TEST_CASE("a race between blocks" NEEDS_HOOKS) {
  expect_report({"race between blocks", "kernel:  all_write_one, block (", "thread (0,0,0) writes",
                 "out, element 0", "earlier: block (", line("all")},
                [&] {
                  Array<float> out(1, "out");
                  launch(all_write_one, {"all_write_one", dim3(4), dim3(1)}, out.data());
                });
  expect_report({"race between blocks", "out, element 0"}, [&] {
    Array<float> out(std::vector<float>(4), "out");
    launch(read_what_others_write, {"read_what_others_write", dim3(4), dim3(1)}, out.data());
  });
  expect_report(
      {"race between blocks", "sum_by_last_block", line("last block read"), "__threadfence()"},
      [&] {
        Array<float> partial(64, "partial"), out(1, "out");
        Array<unsigned> arrived(std::vector<unsigned>{0}, "arrived");
        launch(sum_by_last_block, {"sum_by_last_block", dim3(64), dim3(1)}, partial.data(),
               arrived.data(), out.data(), true);
      });
}

__global__ void vector_load(const float* in, float4* out, int offset) {
  *out = *reinterpret_cast<const float4*>(in + offset);  // [misaligned]
}

TEST_CASE("a misaligned vector" NEEDS_HOOKS) {
  Array<float> in(iota<float>(16), "in");
  Array<float4> out(1, "out");
  const auto run = [&](int offset) {
    launch(vector_load, {"vector_load", dim3(1), dim3(1)}, static_cast<const float*>(in.data()),
           out.data(), offset);
  };
  CHECK_NOTHROW(run(4));
  expect_report({"misaligned access", "kernel:  vector_load, block (0,0,0)", "thread (0,0,0)",
                 "16 bytes", line("misaligned")},
                [&] { run(5); });
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

TEST_CASE("launches that no GPU takes") {
  const auto refuse = [](dim3 grid, dim3 block, std::size_t bytes, const char* why) {
    try {
      launch(skips_one, {"skips_one", grid, block, bytes}, nullptr, 0);
      FAIL("was launched");
    } catch (const Error& error) {
      CHECK(error.code == ExitCode::usage);
      CHECK(std::string(error.what()).find(why) != std::string::npos);
    }
  };
  refuse(dim3(1), dim3(1025), 0, "1025 threads");
  refuse(dim3(1, 65536), dim3(1), 0, "65536");
  refuse(dim3(1), dim3(1), 300 << 10, "307200 bytes");
}

TEST_CASE("passes of 16-byte accesses: a quarter of a warp, or half of it in pairs") {
  const auto passes = [](auto word_of_lane, std::uint32_t mask = 0xffffffff) {
    std::array<std::uint32_t, 32> address;
    for (int lane = 0; lane < 32; ++lane) address[lane] = 16 * word_of_lane(lane);
    return emulator::wavefronts(address, mask, 16);
  };
  CHECK(passes([](int lane) { return lane; }) == 4);      // 512 bytes
  CHECK(passes([](int) { return 7; }) == 2);              // one address
  CHECK(passes([](int lane) { return lane / 2; }) == 2);  // chapter 01's K: neighbours agree
  CHECK(passes([](int lane) { return lane / 4 * 2 + lane % 2; }) == 2);  // n and n + 2 agree
  CHECK(passes([](int lane) { return lane % 16; }) == 4);                // dealt row by row
  CHECK(passes([](int lane) { return lane; }, 0x000000ff) == 1);
  CHECK(passes([](int lane) { return 8 * lane; }) == 32);  // eight lanes want the same banks
}

}  // namespace
}  // namespace al
