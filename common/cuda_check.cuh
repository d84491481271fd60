// check(status, what): a CUDA call that failed becomes an Error that says what to do.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "common/error.hpp"

namespace al {

// `what` names the call or the kernel: "cudaMemGetInfo", "scores_register_tiles".
// Errors: no usable GPU → no_device; out of memory → usage; anything else → wrong_result.
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  const std::string name = cudaGetErrorName(status);
  const std::string said =
      std::string(what) + " failed with " + name + " (" + cudaGetErrorString(status) + ")";
  switch (status) {
    case cudaErrorMemoryAllocation:
      throw usage_error(said + "; choose a smaller problem, or free memory on this GPU.");
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorSystemNotReady:
    case cudaErrorStubLibrary:
    case cudaErrorDevicesUnavailable:
      throw Error(ExitCode::no_device,
                  said + "; this program needs an NVIDIA GPU with a driver for CUDA " +
                      std::to_string(CUDART_VERSION / 1000) +
                      ". Without one, build the emulator preset.");
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion:
      throw Error(ExitCode::no_device,
                  said +
                      "; this program was compiled for another GPU. Configure again with "
                      "CMAKE_CUDA_ARCHITECTURES set to this GPU's.");
    case cudaErrorInvalidConfiguration:
    case cudaErrorLaunchOutOfResources:
      throw Error(ExitCode::wrong_result,
                  said +
                      "; the launch asks for more threads, registers or shared memory than this "
                      "GPU gives one block..");
    default:
      throw Error(ExitCode::wrong_result,
                  said +
                      "; run it again under compute-sanitizer, which names the line, or in the "
                      "emulator.");
  }
}

}  // namespace al
