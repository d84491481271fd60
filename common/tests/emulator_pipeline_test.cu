// Faults in pipelines of bulk copies and mbarriers: each is reported, in every order of threads and
// copies, and none of them hangs.
#include "common/launch.cuh"
#include "common/ptx/bulk_copy.cuh"
#include "common/ptx/mbarrier.cuh"
#include "common/ptx/named_barrier.cuh"
#include "common/ptx/setmaxnreg.cuh"
#include "common/ptx/tma.cuh"
#include "common/tensor_map.hpp"
#include "common/tests/emulator_checks.hpp"

namespace al {
namespace {

enum class Fault {
  none,
  no_mbarrier_fence,
  no_init,
  producer_parity,
  consumer_parity,
  no_arrival,
  half_the_arrivals,
  bytes_short,
  bytes_long,
  no_empty_wait,
  arrival_before_read,
  no_full_wait,
  one_thread_waits,
  no_proxy_fence,
  store_not_waited,
  ends_early,
};

constexpr int kChunk = 64, kStages = 2, kChunks = 7;

// A producer thread, and two consumer warps that add 1 to each chunk and store it.
__global__ void pipeline(const int* in, int* out, Fault fault) {
  SharedArena shared;
  auto& stage = shared.take<int[kStages][kChunk]>("stage");
  auto& result = shared.take<int[kChunk]>("result");
  auto& full = shared.take<std::uint64_t[kStages]>("full");
  auto& empty = shared.take<std::uint64_t[kStages]>("empty");
  const auto is = [fault](Fault f) { return f == fault; };
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      if (!is(Fault::no_init)) mbarrier_init(&full[s], 1);
      mbarrier_init(&empty[s], kChunk);
    }
    if (!is(Fault::no_mbarrier_fence)) fence_mbarrier_init();
  }
  __syncthreads();

  if (threadIdx.x >= kChunk) {
    if (threadIdx.x != kChunk) return;
    for (int i = 0; i < kChunks; ++i) {
      const int s = i % kStages, round = i / kStages;
      if (!is(Fault::no_empty_wait)) {
        mbarrier_wait(&empty[s], (round + !is(Fault::producer_parity)) % 2);  // [empty wait]
      }
      mbarrier_arrive_expect_tx(
          &full[s], 4 * kChunk - 16 * is(Fault::bytes_short) + 16 * is(Fault::bytes_long));
      bulk_copy(stage[s], in + i * kChunk, 4 * kChunk, &full[s]);  // [load]
    }
    return;
  }
  const int t = threadIdx.x, read = is(Fault::arrival_before_read) ? kChunks : 0;
  for (int i = 0; i < kChunks; ++i) {
    const int s = i % kStages, round = i / kStages;
    if (!is(Fault::no_full_wait) && !(is(Fault::one_thread_waits) && t != 0)) {
      mbarrier_wait(&full[s], (round + is(Fault::consumer_parity)) % 2);  // [full wait]
    }
    if (is(Fault::ends_early) && i == 3) return;
    const auto arrive = [&] {
      if (is(Fault::no_arrival) || (is(Fault::half_the_arrivals) && t % 2 == 0)) return;
      mbarrier_arrive(&empty[s]);
    };
    if (i < read) arrive();
    const int value = stage[s][t];  // [read]
    if (i >= read) arrive();
    if (t == 0) bulk_store_wait_read<0>();
    named_barrier_sync(1, kChunk);  // the last chunk's result has been stored
    result[t] = value + 1;          // [write]
    if (!is(Fault::no_proxy_fence)) fence_proxy_async();
    named_barrier_sync(1, kChunk);  // this one's is there
    if (t == 0) {
      bulk_store(out + i * kChunk, result, 4 * kChunk);  // [store]
      bulk_store_commit();
    }
  }
  if (t == 0 && !is(Fault::store_not_waited)) bulk_store_wait_read<0>();
}

void run_pipeline(Fault fault) {
  Array<int> in(iota<int>(kChunks * kChunk), "in"), out(kChunks * kChunk, "out");
  launch(pipeline,
         {"pipeline", dim3(1), dim3(kChunk + 32),
          shared_bytes<int[kStages][kChunk], int[kChunk], std::uint64_t[kStages],
                       std::uint64_t[kStages]>()},
         static_cast<const int*>(in.data()), out.data(), fault);
  const std::vector<int> got = out.host();
  for (int i = 0; i < kChunks * kChunk; ++i) CHECK(got[i] == i + 1);
}

TEST_CASE("a right pipeline runs clean in every order") {
  under_seeds([] { run_pipeline(Fault::none); });
}

TEST_CASE("barriers that are not ready for use") {
  expect_report({"mbarrier that the copy engine has not heard of", "kernel:  pipeline, block (",
                 "thread (64,0,0)", line("load"), "fence_mbarrier_init()"},
                [] { run_pipeline(Fault::no_mbarrier_fence); });
}

TEST_CASE("barriers that were never initialised") {
  expect_report({"mbarrier that was never initialised", "full[0]"},
                [] { run_pipeline(Fault::no_init); });
}

TEST_CASE("waits that can never end are deadlocks, with what is missing") {
  expect_report(
      {"deadlock", "kernel:  pipeline, block (",
       "thread (64,0,0), lane 0 of warp 2, for "
       "parity 0, phase 0 of empty[0]: 64 of 64 arrivals are missing, at " +
           line("empty wait"),
       "for parity 0, phase 0 of full[0]: 1 of 1 arrivals are missing, at " + line("full wait"),
       "the parity waited for"},
      [] { run_pipeline(Fault::producer_parity); });
  expect_report({"deadlock", "empty[0]: 64 of 64 arrivals are missing", line("empty wait")},
                [] { run_pipeline(Fault::no_arrival); });
  expect_report({"deadlock", "empty[0]: 32 of 64 arrivals are missing"},
                [] { run_pipeline(Fault::half_the_arrivals); });
}

TEST_CASE("byte counts that are off") {
  expect_report({"deadlock", "phase 0 of full[",
                 "0 of 1 arrivals are missing, 16 bytes too many "
                 "have come",
                 "mbarrier_arrive_expect_tx()"},
                [] { run_pipeline(Fault::bytes_short); });
  expect_report({"deadlock", "16 announced bytes have not come"},
                [] { run_pipeline(Fault::bytes_long); });
}

TEST_CASE("a stage that is written while others read it" NEEDS_HOOKS) {
  expect_report({"kernel:  pipeline, block (", "thread (64,0,0)", "starts a copy to stage, element",
                 line("load")},
                [] { run_pipeline(Fault::no_empty_wait); });
  expect_report({"race in shared memory", "starts a copy to stage, element", line("load"),
                 "read it at " + line("read")},
                [] { run_pipeline(Fault::arrival_before_read); });
}

TEST_CASE("a stage that is read before it is there" NEEDS_HOOKS) {
  // Whether the copy has started, is on its way or has landed: nobody knows without a wait.
  for (const Fault fault : {Fault::no_full_wait, Fault::one_thread_waits, Fault::consumer_parity}) {
    expect_report(
        {"shared memory", "kernel:  pipeline, block (", "reads stage, element", line("read")},
        [&] { run_pipeline(fault); });
  }
}

TEST_CASE("a store from what was written without a proxy fence" NEEDS_HOOKS) {
  expect_report(
      {"hardware reads what a thread has written, without a fence",
       "starts a store from result, element", line("store"), line("write"), "fence_proxy_async()"},
      [] { run_pipeline(Fault::no_proxy_fence); });
}

TEST_CASE("hardware at work when a thread or the block ends") {
  expect_report({"thread ends without waiting for its bulk stores", "thread (0,0,0)"},
                [] { run_pipeline(Fault::store_not_waited); });
}

__global__ void leaves_a_copy(const int* in) {
  SharedArena shared;
  auto& stage = shared.take<int[4]>("stage");
  auto& full = shared.take<std::uint64_t[1]>("full");
  mbarrier_init(full, 1);
  fence_mbarrier_init();
  mbarrier_arrive_expect_tx(full, 16);
  bulk_copy(stage, in, 16, full);  // [left behind]
}

TEST_CASE("a block that ends before its copies") {
  Array<int> in(iota<int>(4), "in");
  expect_report({"block ends while hardware is at work",
                 "a copy to stage, started at " + line("left behind")},
                [&] {
                  launch(
                      leaves_a_copy,
                      {"leaves_a_copy", dim3(1), dim3(1), shared_bytes<int[4], std::uint64_t[1]>()},
                      static_cast<const int*>(in.data()));
                });
}

// Two groups of threads exchange a value each through shared memory.
__global__ void exchange(int* out, bool forget, int threads) {
  SharedArena shared;
  auto& value = shared.take<int[64]>("value");
  if (threadIdx.x >= 64) return;  // a warp that takes no part
  value[threadIdx.x] = threadIdx.x;
  if (!forget) named_barrier_sync(2, threads);  // [exchange barrier]
  out[threadIdx.x] = value[63 - threadIdx.x];   // [exchange read]
}

TEST_CASE("named barriers order those who come to them") {
  Array<int> out(64, "out");
  const auto run = [&](bool forget, int threads) {
    launch(exchange, {"exchange", dim3(1), dim3(96), shared_bytes<int[64]>()}, out.data(), forget,
           threads);
  };
  under_seeds([&] { run(false, 64); });
  expect_report({"deadlock", "at named barrier 2, to which 64 of 96 threads have come",
                 line("exchange barrier")},
                [&] { run(false, 96); });
  expect_report({"impossible named barrier", "of 65 threads"}, [&] { run(false, 65); });
}

TEST_CASE("a missing named barrier" NEEDS_HOOKS) {
  Array<int> out(64, "out");
  expect_report({"shared memory", "value, element", line("exchange read")}, [&] {
    launch(exchange, {"exchange", dim3(1), dim3(96), shared_bytes<int[64]>()}, out.data(), true,
           64);
  });
}

template <int GIVE, int TAKE>
__global__ void registers() {
  if (threadIdx.x < 128) {
    setmaxnreg_dec<GIVE>();
  } else {
    setmaxnreg_inc<TAKE>();
  }
}

TEST_CASE("more registers than there are") {
  const auto run = [](auto kernel) { launch(kernel, {"registers", dim3(1), dim3(384)}); };
  under_seeds([&] { run(registers<24, 240>); });
  expect_report({"deadlock", "for 240 registers a thread, of which the block has 64512"},
                [&] { run(registers<32, 240>); });
  expect_report({"setmaxnreg in the wrong direction"}, [&] { run(registers<24, 160>); });
}

__global__ void box(const __grid_constant__ TensorMap map, int rank) {
  SharedArena shared;
  auto& tile = shared.take<std::uint16_t[8][64]>("tile");
  auto& full = shared.take<std::uint64_t[1]>("full");
  mbarrier_init(full, 1);
  fence_mbarrier_init();
  mbarrier_arrive_expect_tx(full, 1024);
  if (rank == 2) {
    tma_load(tile, map, full, {0, 0});  // [box]
  } else {
    tma_load(&tile[0][8], map, full, {0, 0, 0});
  }
  mbarrier_wait(full, 0);
}

TEST_CASE("tensor maps and boxes that do not fit") {
  Array<std::uint16_t> data(std::vector<std::uint16_t>(64 * 64), "data");
  const auto run = [&](const TensorMap& map, int rank) {
    launch(box, {"box", dim3(1), dim3(1), shared_bytes<std::uint16_t[8][64], std::uint64_t[1]>()},
           map, rank);
  };
  const TensorMap map =
      make_tensor_map(data.data(), TensorElement::f16, {{64, 64}, {128}, {64, 8}});
  CHECK_NOTHROW(run(map, 2));
  expect_report({"tensor map that nobody has made", line("box")}, [&] { run(TensorMap{}, 2); });
  expect_report({"tensor map of another rank"}, [&] { run(map, 3); });
}

TEST_CASE("boxes that reach out of an array or a buffer" NEEDS_HOOKS) {
  Array<std::uint16_t> data(std::vector<std::uint16_t>(64 * 64), "data");
  const auto run = [&](std::uint64_t rows, std::uint32_t box_rows, int pitch) {
    launch(box, {"box", dim3(1), dim3(1), shared_bytes<std::uint16_t[8][64], std::uint64_t[1]>()},
           make_tensor_map(data.data(), TensorElement::f16,
                           {{64, rows}, {static_cast<std::uint64_t>(pitch)}, {64, box_rows}}),
           2);
  };
  expect_report({"overrun of a shared array", "past the end of tile", line("box")},
                [&] { run(64, 16, 128); });
  expect_report({"access outside global memory", "data"}, [&] { run(64, 8, 4096); });
}

}  // namespace
}  // namespace al
