#pragma once

#include <vector_types.h>

#include <cstddef>

namespace al::emulator {

void set_thread(uint3 thread);
void set_block(dim3 grid_size, dim3 block_size, uint3 block);
bool is_index(std::size_t address);  // one of this operating-system thread's four variables?

}  // namespace al::emulator
