// CUDA events: marks in a stream, and the time between two of them.
#pragma once

#include "common/cuda_check.cuh"
#include "common/device.hpp"

namespace al {

class Event {
 public:
  Event() { check(cudaEventCreate(&event_), "cudaEventCreate"); }
  ~Event() { cudaEventDestroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(Stream stream) { check(cudaEventRecord(event_, stream), "cudaEventRecord"); }
  void wait() const { check(cudaEventSynchronize(event_), "waiting for the GPU"); }

  // Both must have happened.
  friend double elapsed_ms(const Event& start, const Event& stop) {
    float ms = 0;
    check(cudaEventElapsedTime(&ms, start.event_, stop.event_), "cudaEventElapsedTime");
    return ms;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

}  // namespace al
