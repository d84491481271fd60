#pragma once

#include <cstddef>

namespace al::emulator {

// Is the address in the program's or a library's own data: constants, tables, __constant__ arrays?
bool is_static(std::size_t address);

}  // namespace al::emulator
