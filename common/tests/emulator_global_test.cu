// Global memory in the emulator: what was never written, what is out of range, and blocks that
// meet.
#include <cmath>

#include "common/launch.cuh"
#include "common/ptx/bulk_copy.cuh"
#include "common/ptx/dependent_launch.cuh"
#include "common/tests/emulator_checks.hpp"

namespace al {
namespace {

// --- kernels that are right ----------------------------------------------------------------------

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

// --- planted faults ------------------------------------------------------------------------------

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

__global__ void begins_early(const float* in, float* out, int waiting) {
  bulk_prefetch_L2(in, 64);  // is no read
  if (static_cast<int>(threadIdx.x) < waiting) wait_for_kernels_in_front();
  out[threadIdx.x] = in[threadIdx.x];  // [early]
}

TEST_CASE("a kernel that overlaps the one in front waits before it reads" NEEDS_HOOKS) {
  Array<float> in(iota<float>(64), "in"), out(64, "out");
  const auto run = [&](bool overlaps, int waiting) {
    launch(begins_early, {.name = "begins_early", .grid = 1, .block = 64, .overlaps = overlaps},
           static_cast<const float*>(in.data()), out.data(), waiting);
  };
  CHECK_NOTHROW(run(false, 0));
  CHECK_NOTHROW(run(true, 64));
  CHECK(out.host() == in.host());
  expect_report(
      {"use of global memory before the kernels in front have ended", "begins_early",
       "thread (63,0,0) reads in, element 63", line("early"), "wait_for_kernels_in_front()"},
      [&] { run(true, 63); });
}

__global__ void prefetches(const float* in, int bytes) { bulk_prefetch_L2(in, bytes); }

TEST_CASE("a prefetch of what is not there" NEEDS_HOOKS) {
  Array<float> in(iota<float>(64), "in");
  const auto run = [&](int first, int bytes) {
    launch(prefetches, {"prefetches", dim3(1), dim3(1)},
           static_cast<const float*>(in.data() + first), bytes);
  };
  CHECK_NOTHROW(run(0, 256));
  expect_report({"access outside global memory", "after the end of in"}, [&] { run(4, 256); });
  expect_report({"misaligned bulk prefetch"}, [&] { run(1, 64); });
}

}  // namespace
}  // namespace al
