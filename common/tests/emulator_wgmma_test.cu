// Faults round wgmma: shared memory that changes under it, registers touched too early, threads out
// of step.
#include "common/launch.cuh"
#include "common/ptx/bulk_copy.cuh"
#include "common/ptx/mbarrier.cuh"
#include "common/ptx/wgmma.cuh"
#include "common/tests/emulator_checks.hpp"

namespace al {
namespace {

enum class Fault {
  none,
  no_proxy_fence,
  no_wgmma_fence,
  no_commit,
  used_before_wait,
  wait_for_too_little,
  released_before_wait,
  not_waited,
  a_warp_stays_away,
  descriptors_differ,
};

constexpr int kN = 16, kRounds = 5;
using Stage = unsigned char[kN * 32];  // B [16, 16] in fp16, without swizzle

// d = sum over the rounds of A · B_i, A all ones, B_i from global memory through two stages that a
// producer warp fills. Every element of the result is the sum of 16 · kRounds ones, times i + 1.
__global__ void rounds(const __half* B, float* out, Fault fault) {
  SharedArena shared;
  auto& A_smem = shared.take<unsigned char[64 * 32]>("A_smem");
  auto& B_smem = shared.take<Stage[2]>("B_smem");
  auto& full = shared.take<std::uint64_t[2]>("full");
  auto& empty = shared.take<std::uint64_t[2]>("empty");
  const auto is = [fault](Fault f) { return f == fault; };
  const int t = threadIdx.x;
  if (t == 0) {
    for (int s = 0; s < 2; ++s) {
      mbarrier_init(&full[s], 1);
      mbarrier_init(&empty[s], 128);
    }
    fence_mbarrier_init();
  }
  for (int i = t; i < 64 * 16; i += blockDim.x) {
    reinterpret_cast<__half*>(A_smem)[i] = __float2half(1);  // [write A]
  }
  if (!is(Fault::no_proxy_fence)) fence_proxy_async();
  __syncthreads();

  if (t >= 128) {
    for (int i = 0; i < kRounds && t == 128; ++i) {
      mbarrier_wait(&empty[i % 2], (i / 2 + 1) % 2);
      mbarrier_arrive_expect_tx(&full[i % 2], sizeof(Stage));
      bulk_copy(B_smem[i % 2], B + i * kN * 16, sizeof(Stage), &full[i % 2]);  // [fill]
    }
    return;
  }
  float d[kN / 2];
  for (int i = 0; i < kRounds; ++i) {
    mbarrier_wait(&full[i % 2], i / 2 % 2);
    if (is(Fault::a_warp_stays_away) && i == 2 && t / 32 == 3) return;
    const std::uint64_t a = wgmma_descriptor(A_smem, Swizzle::none, 64 * 16, 128);
    const int wrong = is(Fault::descriptors_differ) && t / 32 == 1 ? 1 - i % 2 : i % 2;
    const std::uint64_t b = wgmma_descriptor(B_smem[wrong], Swizzle::none, kN * 16, 128);
    if (!is(Fault::no_wgmma_fence)) wgmma_fence();
    wgmma_ss<__half>(d, a, b, i > 0);  // [wgmma]
    if (!is(Fault::no_commit)) wgmma_commit();
    if (is(Fault::used_before_wait)) out[t] = d[1];  // [use d]
    if (is(Fault::released_before_wait)) mbarrier_arrive(&empty[i % 2]);
    if (is(Fault::wait_for_too_little)) {
      wgmma_wait<1>();
    } else if (!is(Fault::not_waited) || i < kRounds - 1) {
      wgmma_wait<0>();
    }
    if (!is(Fault::released_before_wait)) mbarrier_arrive(&empty[i % 2]);
  }
  if (is(Fault::not_waited)) return;
  float sum = 0;
  for (int j = 0; j < kN / 2; ++j) sum += d[j];
  out[t] = sum;
}

void run_rounds(Fault fault) {
  std::vector<__half> values;
  for (int i = 0; i < kRounds * kN * 16; ++i) {
    values.push_back(__float2half(static_cast<float>(i / (kN * 16) + 1)));
  }
  Array<__half> B(values, "B");
  Array<float> out(128, "out");
  launch(rounds,
         {"rounds", dim3(1), dim3(160),
          shared_bytes<unsigned char[64 * 32], Stage[2], std::uint64_t[2], std::uint64_t[2]>()},
         static_cast<const __half*>(B.data()), out.data(), fault);
  for (const float x : out.host()) CHECK(x == 8 * 16 * (1 + 2 + 3 + 4 + 5));
}

TEST_CASE("a right pipeline of wgmma runs clean in every order") {
  under_seeds([] { run_rounds(Fault::none); });
}

TEST_CASE("wgmma reads what threads wrote without a proxy fence" NEEDS_HOOKS) {
  expect_report({"hardware reads what a thread has written, without a fence",
                 "starts a wgmma on A_smem", line("wgmma"), line("write A")},
                [] { run_rounds(Fault::no_proxy_fence); });
}

TEST_CASE("a stage that is filled while a wgmma reads it" NEEDS_HOOKS) {
  expect_report({"race in shared memory", "starts a copy to B_smem", line("fill"),
                 "a wgmma of warps 0 to 3 read it at " + line("wgmma")},
                [] { run_rounds(Fault::released_before_wait); });
  expect_report({"race in shared memory", "starts a copy to B_smem", "a wgmma of warps 0 to 3"},
                [] { run_rounds(Fault::wait_for_too_little); });
}

TEST_CASE("accumulators that are used before the wait" NEEDS_HOOKS) {
  expect_report({"use of accumulators that a wgmma still works on", "kernel:  rounds",
                 "touches d[1]", line("use d")},
                [] { run_rounds(Fault::used_before_wait); });
  expect_report({"race in shared memory", "starts a copy to B_smem", "a wgmma of warps 0 to 3"},
                [] { run_rounds(Fault::no_commit); });
}

TEST_CASE("wgmma that nobody waits for, and registers nobody fenced") {
  expect_report({"thread ends without waiting for its wgmma", "wgmma_wait<0>()"},
                [] { run_rounds(Fault::not_waited); });
  expect_report({"wgmma without wgmma_fence", line("wgmma")},
                [] { run_rounds(Fault::no_wgmma_fence); });
}

TEST_CASE("warps out of step") {
  expect_report(
      {"deadlock", "in a wgmma, to which 96 of the 128 threads of its warpgroup have come",
       line("wgmma")},
      [] { run_rounds(Fault::a_warp_stays_away); });
  expect_report({"threads of a warpgroup disagree about a wgmma", line("wgmma")},
                [] { run_rounds(Fault::descriptors_differ); });
}

__global__ void alone(float* out) {
  float d[4];
  wgmma_fence();
  wgmma_ss<__half>(d, 0, 0, false);
  wgmma_commit();
  wgmma_wait<0>();
  out[threadIdx.x] = d[0];
}

TEST_CASE("less than a warpgroup") {
  Array<float> out(128, "out");
  expect_report({"wgmma by less than a warpgroup"}, [&] {
    launch(alone, {"alone", dim3(1), dim3(96)}, out.data());
  });
}

}  // namespace
}  // namespace al
