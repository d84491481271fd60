// The words of a report.
#pragma once

#include <vector_types.h>

#include <cstddef>
#include <source_location>
#include <string>
#include <vector>

namespace al::emulator {

std::string to_string(uint3 index);              // "(3,0,0)"
uint3 unflatten(std::size_t linear, dim3 size);  // number in the block or grid -> index

// "01_naive_qk/tiled.cuh:42". The last two parts of the path: the rest is the machine's business.
std::string to_string(const std::source_location& where);
// The same for an instruction, by the program's debug information; or why that is not known.
std::string line_of(std::size_t pc);
std::vector<std::string> lines_of(const std::vector<std::size_t>& pcs);  // of one program

}  // namespace al::emulator
