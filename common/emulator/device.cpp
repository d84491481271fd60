// The CPU as the device.
#include "common/device.hpp"

#include <fstream>
#include <limits>

#include "common/emulator/worker.hpp"

namespace al {

const DeviceInfo& device() {
  static const DeviceInfo info = {
      .backend = "emulator",
      .name = "emulator",
      .sm = 90,
      .sms = 132,  // an H200's, so that a launcher chooses the same tile as there
      .shared_per_block = emulator::SharedMemory::kLimit,
      .driver = {},
      .cuda =
          std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10)};
  return info;
}

std::size_t free_memory() {
  std::ifstream file("/proc/meminfo");
  std::size_t kilobytes = 0;
  for (std::string key; file >> key;
       file.ignore(std::numeric_limits<std::streamsize>::max(), '\n')) {
    if (key == "MemAvailable:") file >> kilobytes;
  }
  // The shadow of a byte takes up to ten.
  return kilobytes * 1024 / (emulator::kHooks ? 11 : 1);
}

void profiler_start() {}
void profiler_stop() {}
void synchronize() {}  // a launch has ended when it returns

}  // namespace al
