// Host loops spread over the cores.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace al {

// Calls body(begin, end) for pieces of [0, count) of at most `chunk` items, on `threads` threads
// (0: one for each core); threads that finish early take more pieces. The body must not throw.
template <typename Body>
void parallel_for(std::int64_t count, std::int64_t chunk, int threads, const Body& body) {
  const std::int64_t pieces = (count + chunk - 1) / chunk;
  if (pieces <= 1) {  // asking for the number of cores takes longer than a small body
    if (count > 0) body(std::int64_t{0}, count);
    return;
  }
  if (threads == 0) threads = std::max(1u, std::thread::hardware_concurrency());
  std::atomic<std::int64_t> next{0};
  const auto work = [&] {
    for (std::int64_t begin; (begin = next.fetch_add(chunk)) < count;) {
      body(begin, std::min(begin + chunk, count));
    }
  };
  std::vector<std::jthread> others;
  for (std::int64_t i = 1; i < std::min<std::int64_t>(threads, pieces); ++i) {
    others.emplace_back(work);
  }
  work();
}

}  // namespace al
