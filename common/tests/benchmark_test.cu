// The stopwatch against kernels that last as long as they are told, and the ceilings against
// each other.
#include "common/benchmark.hpp"

#include <doctest/doctest.h>

#include <cuda/std/chrono>
#include <vector>

#include "common/buffer.hpp"
#include "common/error.hpp"
#include "common/launch.cuh"
#include "common/roofline.hpp"

namespace al {
namespace {

// Lasts `nanoseconds` by the GPU's own clock, and says that it ran.
__global__ void spin(long long nanoseconds, int* runs) {
  using Clock = cuda::std::chrono::high_resolution_clock;
  const auto until = Clock::now() + cuda::std::chrono::nanoseconds(nanoseconds);
  ++*runs;
  while (Clock::now() < until) {
  }
}

// One counter for each buffer set.
class Spinner {
 public:
  explicit Spinner(int sets) : runs_(sets * sizeof(int), "runs") {
    const std::vector<int> zeros(sets);
    runs_.write(zeros.data(), runs_.size());
  }
  Enqueue lasting(double microseconds) {
    return [this, microseconds](int set, Stream stream) {
      launch(spin, {.name = "spin", .grid = 1, .block = 1, .stream = stream},
             static_cast<long long>(1e3 * microseconds), static_cast<int*>(runs_.data()) + set);
    };
  }
  std::vector<int> runs() const {
    std::vector<int> counts(runs_.size() / sizeof(int));
    runs_.read(counts.data(), runs_.size());
    return counts;
  }

 private:
  DeviceBuffer runs_;
};

void check_plausible(const Measurement& m, double ms, double slack_ms) {
  CHECK(m.median_ms >= 0.97 * ms);  // the clock spin() reads ticks once in a microsecond
  CHECK(m.median_ms <= ms + slack_ms);
  CHECK(m.p10_ms <= m.median_ms);
  CHECK(m.median_ms <= m.p90_ms);
}

TEST_CASE("a short kernel is timed in a graph, with the event figure beside it") {
  Spinner spinner(5);
  const Benchmark result = benchmark(spinner.lasting(50), 5);
  CHECK(result.primary.timing == Timing::graph);
  CHECK(result.primary.samples == 30);
  check_plausible(result.primary, 0.050, 0.008);
  REQUIRE(result.beside);
  CHECK(result.beside->timing == Timing::events);
  CHECK(result.beside->samples == 30);
  check_plausible(*result.beside, 0.050, 0.020);
}

TEST_CASE("a long kernel is timed by events") {
  Spinner spinner(1);
  const Benchmark result = benchmark(spinner.lasting(1000), 1);
  CHECK(result.primary.timing == Timing::events);
  CHECK_FALSE(result.beside);
  CHECK(result.primary.samples == 30);
  check_plausible(result.primary, 1, 0.05);
  CHECK(spinner.runs()[0] >= 40);  // 10 to warm up, 30 samples
}

TEST_CASE("as many samples as asked for, and every buffer set is used") {
  Spinner spinner(7);
  const Benchmark result = benchmark(spinner.lasting(300), 7, 3);
  CHECK(result.primary.samples == 3);
  for (const int runs : spinner.runs()) CHECK(runs >= 1);
}

TEST_CASE("an error while a graph is captured gets out, and the next measurement is not hurt") {
  Spinner spinner(1);
  const Enqueue work = spinner.lasting(10);
  const Enqueue fails_in_capture = [&](int set, Stream stream) {
    cudaStreamCaptureStatus status;
    check(cudaStreamIsCapturing(stream, &status), "cudaStreamIsCapturing");
    if (status == cudaStreamCaptureStatusActive) throw usage_error("not in a graph");
    work(set, stream);
  };
  CHECK_THROWS_AS(benchmark(fails_in_capture, 1), Error);
  CHECK(benchmark(work, 1).primary.timing == Timing::graph);
}

TEST_CASE("enough buffer sets to leave L2 behind") {
  constexpr std::size_t MiB = 1 << 20;
  CHECK(buffer_sets(1024 * MiB) == 1);
  CHECK(buffer_sets(100 * MiB) == 6);
  CHECK(buffer_sets(1) == 256);
}

TEST_CASE("the ceilings stand in the order that the hardware gives them") {
  const Ceilings c = measure_ceilings();
  REQUIRE(c.copy_gbps);
  REQUIRE(c.read_gbps);
  REQUIRE(c.shared_gbps);
  REQUIRE(c.ffma_tflops);
  CHECK(*c.copy_gbps > 0);
  CHECK(*c.read_gbps > 0.95 * *c.copy_gbps);
  CHECK(*c.shared_gbps > 2 * *c.read_gbps);
  CHECK(*c.ffma_tflops > 0);
  if (c.tensor_tflops) {
    CHECK(*c.tensor_tflops > *c.ffma_tflops);
  } else {
    CHECK(c.why_absent != "");
  }
  CHECK(*c.mma_tflops > *c.ffma_tflops);
  if (c.tensor_tflops) CHECK(*c.mma_tflops < 1.5 * *c.tensor_tflops);
  // An eighth of the FMAs, or a quarter; and an FMA counts two.
  CHECK(*c.exp_tops > 0.04 * *c.ffma_tflops);
  CHECK(*c.exp_tops < 0.16 * *c.ffma_tflops);
  if (c.tensor_fp8_tflops) CHECK(*c.tensor_fp8_tflops > 1.2 * *c.tensor_tflops);
  // A gigabyte is enough to copy at nearly full speed. It can look a little faster than that: the
  // last lines written are still in L2 when the kernel ends.
  const double at_1gib = copy_gbps_at(std::size_t{1} << 30);
  CHECK(at_1gib > 0.7 * *c.copy_gbps);
  CHECK(at_1gib < 1.15 * *c.copy_gbps);
}

}  // namespace
}  // namespace al
