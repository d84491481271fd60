// The device, when it is a GPU.
#include "common/cuda_check.cuh"
#include "common/device.hpp"
#include "common/nvml.hpp"

// PyPI's CUDA headers come without cuda_profiler_api.h.
extern "C" cudaError_t cudaProfilerStart();
extern "C" cudaError_t cudaProfilerStop();

namespace al {
namespace {

// "13.0" from CUDA's 13000.
std::string dotted(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

// NVML knows the driver's own version; without it, the newest CUDA the driver runs must do.
std::string driver_version() {
  const std::string version = nvml_driver_version();
  if (!version.empty()) return version;
  int cuda = 0;
  check(cudaDriverGetVersion(&cuda), "cudaDriverGetVersion");
  return "for CUDA " + dotted(cuda);
}

DeviceInfo query() {
  int count = 0;
  check(cudaGetDeviceCount(&count), "looking for a GPU (cudaGetDeviceCount)");
  int index = 0;
  check(cudaGetDevice(&index), "cudaGetDevice");
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");

  DeviceInfo info;
  info.backend = "cuda";
  info.name = properties.name;
  info.sm = properties.major * 10 + properties.minor;
  info.sms = properties.multiProcessorCount;
  info.shared_per_block = properties.sharedMemPerBlockOptin;
  info.l2_bytes = static_cast<std::size_t>(properties.l2CacheSize);
  info.driver = driver_version();
  info.cuda = dotted(CUDART_VERSION);
  return info;
}

}  // namespace

const DeviceInfo& device() {
  static const DeviceInfo info = query();
  return info;
}

std::size_t free_memory() {
  std::size_t available = 0, total = 0;
  check(cudaMemGetInfo(&available, &total), "cudaMemGetInfo");
  return available;
}

// Their errors say that there is no profiler, or that it has its own idea of when to look.
void profiler_start() { cudaProfilerStart(); }
void profiler_stop() { cudaProfilerStop(); }

void synchronize() { check(cudaDeviceSynchronize(), "waiting for the GPU"); }

}  // namespace al
