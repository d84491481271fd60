// The machine that runs the kernels, as host code sees it. One header, two implementations:
// device_cuda.cu (a GPU) and emulator/device.cpp (the CPU pretending to be one).
#pragma once

#include <cstddef>
#include <string>

struct CUstream_st;

namespace al {

using Stream = CUstream_st*;  // the same type as cudaStream_t; nullptr is the default stream

struct DeviceInfo {
  std::string backend;               // "cuda" or "emulator"
  std::string name;                  // "NVIDIA H200", "emulator"
  int sm = 0;                        // compute capability as in sm_90: 90
  int sms = 0;                       // streaming multiprocessors
  std::size_t shared_per_block = 0;  // largest dynamic shared memory of a block, bytes (opt-in)
  std::size_t l2_bytes = 0;
  std::string driver;  // "580.159.03"; empty under the emulator
  std::string cuda;    // toolkit the program was compiled with: "13.0"
};

// The device in use. Throws Error(no_device), saying what was looked for, when there is none or
// the driver is too old.
const DeviceInfo& device();

std::size_t free_memory();  // bytes that can be allocated now
// Between the two is what a profiler started with --profile-from-start off sees (`make profile`).
// Without a profiler, and in the emulator, nothing happens.
void profiler_start();
void profiler_stop();
void synchronize();  // waits for the device; throws Error(wrong_result) on a device fault

}  // namespace al
