// launch(kernel, config, args...): the one way a kernel is started, on either back end.
#pragma once

#include <cstddef>

#include "common/device.cuh"
#include "common/device.hpp"

#ifdef AL_EMULATOR
#include "common/emulator/launch.hpp"
#else
#include "common/cuda_check.cuh"
#endif

namespace al {

struct LaunchConfig {
  const char* name;  // what an error message calls the kernel
  dim3 grid;
  dim3 block;
  std::size_t shared_bytes = 0;  // dynamic shared memory of a block
  Stream stream = nullptr;
  // May begin before the kernels in front of it have ended (common/ptx/dependent_launch.cuh).
  // Nothing changes before sm_90.
  bool overlaps = false;
};

#ifndef AL_EMULATOR
// Raises the kernel's shared-memory limit where it needs more than the default 48 KiB, launches,
// and throws Error naming the kernel if the launch was refused. Does not wait.
template <typename... Params, typename... Args>
void launch(void (*kernel)(Params...), const LaunchConfig& config, Args... args) {
  if (config.shared_bytes > 48 * 1024) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(config.shared_bytes)),
          config.name);
  }
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t launched{};
  launched.gridDim = config.grid;
  launched.blockDim = config.block;
  launched.dynamicSmemBytes = config.shared_bytes;
  launched.stream = config.stream;
  launched.attrs = &overlap;
  launched.numAttrs = config.overlaps && device().sm >= 90;
  check(cudaLaunchKernelEx(&launched, kernel, static_cast<Params>(args)...), config.name);
}
#else
// Runs every block to its end before it returns. Throws Error(wrong_result) with the emulator's
// report if the kernel did anything a GPU would punish, now or some day.
template <typename... Params, typename... Args>
void launch(void (*kernel)(Params...), const LaunchConfig& config, Args... args) {
  emulator::run_grid(config.name, config.grid, config.block, config.shared_bytes, config.overlaps,
                     [=] { kernel(static_cast<Params>(args)...); });
}
#endif

}  // namespace al
