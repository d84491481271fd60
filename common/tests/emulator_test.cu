// The emulator: kernels that are right run clean in any order of their threads, and each planted
// fault is reported, in every order, with the kernel, the block, the thread and what to look at.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "common/buffer.hpp"
#include "common/emulator/launch.hpp"
#include "common/error.hpp"
#include "common/launch.cuh"
#include "common/ptx/cp_async.cuh"

#ifdef __SANITIZE_ADDRESS__
#define NEEDS_HOOKS                                                                           \
  *doctest::skip(true) * doctest::description("ASan takes the place of the hooks on loads and " \
                                              "stores that find this")
#define ONLY_WITH_ASAN
#else
#define NEEDS_HOOKS
#define ONLY_WITH_ASAN \
  *doctest::skip(true) * doctest::description("needs AddressSanitizer: see the asan preset")
#endif

namespace al {
namespace {

// A buffer of T on the device.
template <typename T>
struct Array {
  Array(std::size_t count, const char* name) : buffer(count * sizeof(T), name) { buffer.poison(); }
  Array(const std::vector<T>& values, const char* name) : Array(values.size(), name) {
    buffer.write(values.data(), values.size() * sizeof(T));
  }
  T* data() { return static_cast<T*>(buffer.data()); }
  std::vector<T> host() const {
    std::vector<T> values(buffer.size() / sizeof(T));
    buffer.read(values.data(), buffer.size());
    return values;
  }
  DeviceBuffer buffer;
};

template <typename T>
std::vector<T> iota(int count) {
  std::vector<T> values(count);
  for (int i = 0; i < count; ++i) values[i] = static_cast<T>(i);
  return values;
}

// Calls run() under several seeds.
template <typename Run>
void under_seeds(Run run) {
  const auto before = emulator::settings();
  for (const std::uint64_t seed : {1, 2, 3, 4, 5, 6, 7, 8}) {
    emulator::settings().seed = seed;
    CAPTURE(seed);
    run();
  }
  emulator::settings() = before;
}

// Runs something that must be reported, under several seeds, and asserts that the report has all
// these words in it.
template <typename Run>
void expect_report(const std::vector<std::string>& words, Run run) {
  under_seeds([&] {
    std::string report = "nothing";
    try {
      run();
    } catch (const Error& error) {
      CHECK(error.code == ExitCode::wrong_result);
      report = error.what();
    }
    for (const std::string& word : words) {
      CAPTURE(report);
      CAPTURE(word);
      CHECK(report.find(word) != std::string::npos);
    }
  });
}

std::string line(int number) { return "tests/emulator_test.cu:" + std::to_string(number); }

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
  slot[warp][lane] = in[threadIdx.x];
  if (!forget_sync) __syncwarp();
  out[threadIdx.x] = slot[warp][31 - lane];
  __syncwarp(0xffffffff);  // all have read
  slot[warp][lane] = 0;
}
constexpr int kExchangeRead = __LINE__ - 4, kExchangeWrite = kExchangeRead - 2;

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
    if (tile < tiles) cp_async_16(&stage[tile % 2][4 * t], in + tile * 128 + 4 * t);
    cp_async_commit();
  };
  float sum = 0;
  load(0);
  for (int tile = 0; tile < tiles; ++tile) {
    load(tile + 1);
    cp_async_wait<NEWER>();
    __syncthreads();  // everyone's part of this tile has arrived
    for (int i = 0; i < 4; ++i) sum += stage[tile % 2][t + 32 * i];
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
__global__ void sum_by_last_block(float* partial, unsigned* arrived, float* out, bool forget_fence) {
  partial[blockIdx.x] = static_cast<float>(blockIdx.x);
  if (!forget_fence) __threadfence();
  if (atomicAdd(arrived, 1) == gridDim.x - 1) {
    float sum = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) sum += partial[b];
    *out = sum;
  }
}

__global__ void many_atomics(int* sum, int* largest, unsigned long long* product, float* total) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(sum, i);
  atomicMax(largest, i);
  atomicAdd(total, 0.5);
  if (threadIdx.x == 0) {
    unsigned long long seen = *product, old = seen + 1;
    (void)old;
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
