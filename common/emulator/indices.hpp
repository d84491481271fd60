#pragma once

#include <vector_types.h>

namespace al::emulator {

void set_thread(uint3 thread);
void set_block(dim3 grid_size, dim3 block_size, uint3 block);

}  // namespace al::emulator
