// What the driver's management library (NVML) says about the GPU. Reads only.
#pragma once

#include <string>

namespace al {

std::string nvml_driver_version();  // "580.159.03"; empty when NVML is not there

// The SM clock right now, MHz, of the GPU at this PCI address ("0000:18:00.0", as
// cudaDeviceGetPCIBusId spells it); 0 when NVML cannot say.
int nvml_sm_clock_mhz(const std::string& pci_bus_id);

}  // namespace al
