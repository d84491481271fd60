#include "common/nvml.hpp"

#include "common/dynamic_library.hpp"

namespace al {
namespace {

// The part of NVML's C interface that is used. Every function returns 0 for success.
struct NvmlDevice;
constexpr int kClockSm = 1;              // NVML_CLOCK_SM
constexpr unsigned kVersionLength = 80;  // NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE

struct Nvml {
  DynamicLibrary library{"libnvidia-ml.so.1"};
  int (*init)() = library.find<int (*)()>("nvmlInit_v2");
  int (*driver_version)(char*, unsigned) =
      library.find<int (*)(char*, unsigned)>("nvmlSystemGetDriverVersion");
  int (*device_by_pci)(const char*, NvmlDevice**) =
      library.find<int (*)(const char*, NvmlDevice**)>("nvmlDeviceGetHandleByPciBusId_v2");
  int (*clock)(NvmlDevice*, int, unsigned*) =
      library.find<int (*)(NvmlDevice*, int, unsigned*)>("nvmlDeviceGetClockInfo");
  bool ready = init && driver_version && device_by_pci && clock && init() == 0;
};

const Nvml& nvml() {
  static const Nvml instance;
  return instance;
}

}  // namespace

std::string nvml_driver_version() {
  char version[kVersionLength] = "";
  if (!nvml().ready || nvml().driver_version(version, kVersionLength) != 0) return "";
  return version;
}

int nvml_sm_clock_mhz(const std::string& pci_bus_id) {
  NvmlDevice* device = nullptr;
  unsigned mhz = 0;
  if (!nvml().ready || nvml().device_by_pci(pci_bus_id.c_str(), &device) != 0) return 0;
  return nvml().clock(device, kClockSm, &mhz) == 0 ? static_cast<int>(mhz) : 0;
}

}  // namespace al
