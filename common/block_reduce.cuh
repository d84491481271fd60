// cub::BlockReduce: CUB's own on a GPU, and the emulator's stand-in for it, for CUB's device code
// is not for a host compiler.
#pragma once

#include "common/device.cuh"

#ifdef AL_EMULATOR
#include "common/emulator/cub_block_reduce.hpp"
#else
#include <cub/block/block_reduce.cuh>
#endif
