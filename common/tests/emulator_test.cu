// The emulator: kernels that are right run clean in any order of their threads, and each planted
// fault is reported, in every order, with the kernel, the block, the thread and what to look at.
// Here: blocks, their barriers and shared memory, launches, and what is counted.
#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "common/emulator/access_log.hpp"
#include "common/launch.cuh"
#include "common/tests/emulator_checks.hpp"

namespace al {
namespace {

// --- kernels that are right ----------------------------------------------------------------------

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

TEST_CASE("launches that no GPU takes") {
  const auto refuse = [](dim3 grid, dim3 block, std::size_t bytes, const char* why) {
    try {
      launch(block_sum, {"block_sum", grid, block, bytes}, nullptr, nullptr);
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

}  // namespace
}  // namespace al
