// How long does it take? The method is docs/measuring.md; under the emulator there is no answer.
#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <optional>
#include <string>

#include "common/device.hpp"

namespace al {

enum class Timing { events, graph };

struct Measurement {
  Timing timing = Timing::events;
  double median_ms = 0, p10_ms = 0, p90_ms = 0;
  int samples = 0;
  int sm_clock_before_mhz = 0, sm_clock_after_mhz = 0;  // 0: NVML could not say
};

struct Benchmark {
  Measurement primary;                // events from 200 us up, else graph
  std::optional<Measurement> beside;  // the event figure beside a graph's
};

// Enqueues one run on buffer set `set` (0 ... sets-1).
using Enqueue = std::function<void(int set, Stream stream)>;

// Events: single launches, each after an L2 flush that ends in reads. Graph: one graph that runs
// every buffer set equally often, divided by the launches. `samples` 0: the rule (>= 10 warm-ups,
// 30 samples; fewer, but at least 5, when they would take more than 3 s). Every set has been run at
// least once when this returns.
Benchmark benchmark(const Enqueue& enqueue, int sets, int samples = 0);

// Buffer sets that make `bytes_per_set` add up to 512 MiB (well past L2), 1 ... 256.
inline int buffer_sets(std::size_t bytes_per_set) {
  constexpr std::size_t rotation = std::size_t{512} << 20;
  const std::size_t each = std::max<std::size_t>(bytes_per_set, 1);
  return static_cast<int>(std::clamp<std::size_t>((rotation + each - 1) / each, 1, 256));
}

}  // namespace al
