#include "common/benchmark.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "common/buffer.hpp"
#include "common/event.cuh"
#include "common/launch.cuh"
#include "common/nvml.hpp"

namespace al {
namespace {

constexpr double kGraphBelowMs = 0.2;  // shorter launches are timed in a graph
constexpr int kWarmUps = 10, kSamples = 30;
// Kernels of a good part of a second get fewer of both, so that one row takes a few seconds.
constexpr int kFewestWarmUps = 1, kFewestSamples = 5;
constexpr double kWarmUpMs = 1000, kSamplingMs = 3000;
// A GPU that was idle needs a moment to raise its clocks.
constexpr double kClockRampMs = 50;
constexpr double kReplayMs = 4;  // one replay lasts at least this long: launching it costs some us

// ---- what CUDA wants destroyed ----

struct OwnStream {
  OwnStream() {
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  }
  ~OwnStream() { cudaStreamDestroy(stream); }
  OwnStream(const OwnStream&) = delete;
  OwnStream& operator=(const OwnStream&) = delete;
  Stream stream = nullptr;
};

struct Graph {
  // Records what `enqueue` puts into `stream`, without running it.
  Graph(Stream stream, const std::function<void()>& enqueue) {
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "starting a graph");
    try {
      enqueue();
    } catch (...) {
      cudaStreamEndCapture(stream, &graph);
      if (graph) cudaGraphDestroy(graph);
      cudaGetLastError();
      throw;
    }
    check(cudaStreamEndCapture(stream, &graph), "capturing a graph");
    check(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
  }
  ~Graph() {
    cudaGraphExecDestroy(executable);
    cudaGraphDestroy(graph);
  }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
};

// ---- emptying L2 ----

constexpr int kThreads = 512;

// Reads 16 bytes a thread at a time. The sum decides whether to write, so that the compiler cannot
// leave the reads out; whether it ever does is of no importance.
__global__ void read_pass(uint4* data, std::size_t vectors) {
  unsigned sum = 0;
  const std::size_t stride = std::size_t{gridDim.x} * blockDim.x;
  for (std::size_t v = std::size_t{blockIdx.x} * blockDim.x + threadIdx.x; v < vectors;
       v += stride) {
    const uint4 loaded = data[v];
    sum ^= loaded.x ^ loaded.y ^ loaded.z ^ loaded.w;
  }
  if (sum == 0x9e3779b9u) data[0] = {sum, sum, sum, sum};
}

// Puts L2 into the state a kernel finds in a real program: full of someone else's data, none of it
// waiting to be written back. Writing displaces the kernel's lines; the read pass
// that follows displaces the dirty lines this left, which would otherwise be written back
// inside the measurement.
class L2Flush {
 public:
  L2Flush() : half_(4 * device().l2_bytes), memory_(2 * half_, "L2 flush") { memory_.poison(); }
  void enqueue(Stream stream) {
    char* written = static_cast<char*>(memory_.data());
    check(cudaMemsetAsync(written, 0x5a, half_, stream), "cudaMemsetAsync");
    launch(read_pass,
           {.name = "read_pass", .grid = 4u * device().sms, .block = kThreads, .stream = stream},
           reinterpret_cast<uint4*>(written + half_), half_ / sizeof(uint4));
  }

 private:
  std::size_t half_;
  DeviceBuffer memory_;
};

// ---- measuring ----

int sm_clock_mhz() {
  int index = 0;
  char pci_bus_id[32];
  check(cudaGetDevice(&index), "cudaGetDevice");
  check(cudaDeviceGetPCIBusId(pci_bus_id, sizeof(pci_bus_id), index), "cudaDeviceGetPCIBusId");
  return nvml_sm_clock_mhz(pci_bus_id);
}

// The value below which `fraction` of the sorted samples lie, between neighbours by a straight
// line.
double quantile(const std::vector<double>& sorted, double fraction) {
  const double position = fraction * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const auto above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (position - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

// Times `run(i)` in `stream`, with `prepare()` before each run and outside its events; one run
// counts as `launches`. `samples` 0: the rule.
Measurement measure(Timing timing, Stream stream, const std::function<void()>& prepare,
                    const std::function<void(int)>& run, int launches, int samples) {
  using Clock = std::chrono::steady_clock;
  Event start, stop;
  const auto timed_run = [&](int i, Event& from, Event& to) {
    prepare();
    from.record(stream);
    run(i);
    to.record(stream);
  };

  // Warm up: the first run loads the code, the next ones raise the clocks. The last one says
  // how long a run takes.
  const Clock::time_point began = Clock::now();
  double ms = 0;
  for (int i = 0;; ++i) {
    const double spent = std::chrono::duration<double, std::milli>(Clock::now() - began).count();
    if (i >= kWarmUps && spent >= kClockRampMs) break;
    if (i >= kFewestWarmUps && spent >= kWarmUpMs) break;
    timed_run(i, start, stop);
    stop.wait();
    ms = elapsed_ms(start, stop);
  }
  if (samples == 0) {
    samples = static_cast<int>(
        std::clamp(kSamplingMs / std::max(ms, 1e-3), double{kFewestSamples}, double{kSamples}));
  }

  Measurement result;
  result.timing = timing;
  result.samples = samples;
  result.sm_clock_before_mhz = sm_clock_mhz();
  // Everything is enqueued before anything is waited for, so that the GPU never waits for the
  // host between the start event and the kernel.
  std::vector<Event> starts(samples), stops(samples);
  for (int i = 0; i < samples; ++i) timed_run(i, starts[i], stops[i]);
  stops.back().wait();
  result.sm_clock_after_mhz = sm_clock_mhz();

  std::vector<double> sorted(samples);
  for (int i = 0; i < samples; ++i) sorted[i] = elapsed_ms(starts[i], stops[i]) / launches;
  std::sort(sorted.begin(), sorted.end());
  result.median_ms = quantile(sorted, 0.5);
  result.p10_ms = quantile(sorted, 0.1);
  result.p90_ms = quantile(sorted, 0.9);
  return result;
}

Measurement measure_events(const Enqueue& enqueue, int sets, int samples, Stream stream) {
  L2Flush flush;
  return measure(
      Timing::events, stream, [&] { flush.enqueue(stream); },
      [&](int i) { enqueue(i % sets, stream); }, 1, samples);
}

// `launch_ms`: about how long one launch takes.
Measurement measure_graph(const Enqueue& enqueue, int sets, int samples, double launch_ms,
                          Stream stream) {
  const int rounds = std::max(1, static_cast<int>(std::ceil(kReplayMs / (launch_ms * sets))));
  const Graph graph(stream, [&] {
    for (int i = 0; i < rounds * sets; ++i) enqueue(i % sets, stream);
  });
  return measure(
      Timing::graph, stream, [] {},
      [&](int) { check(cudaGraphLaunch(graph.executable, stream), "cudaGraphLaunch"); },
      rounds * sets, samples);
}

}  // namespace

Benchmark benchmark(const Enqueue& enqueue, int sets, int samples) {
  synchronize();  // what other streams still do, poisoning for one, comes first
  const OwnStream own;
  // So that the first use of each buffer is not timed, and each holds a result in the end.
  for (int set = 0; set < sets; ++set) enqueue(set, own.stream);
  Benchmark result;
  result.primary = measure_events(enqueue, sets, samples, own.stream);
  if (result.primary.median_ms < kGraphBelowMs) {
    result.beside = result.primary;
    result.primary = measure_graph(enqueue, sets, samples, result.beside->median_ms, own.stream);
  }
  return result;
}

}  // namespace al
