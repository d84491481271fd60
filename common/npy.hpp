// NumPy's .npy files, as much of the format as tensors need: C order, little endian, f2 and f4.
#pragma once

#include <string>
#include <vector>

namespace al {

struct NpyHeader {
  std::vector<int> shape;
  int element_bytes = 4;  // 2: f2, 4: f4
};

// All throw Error(usage) naming the file and what is wrong with it: missing, not .npy, Fortran
// order, another dtype, shorter or longer than its shape says.
NpyHeader read_npy_header(const std::string& path);
std::vector<float> read_npy(const std::string& path);  // f2 is widened
// Written whole or not at all (files.hpp); makes the folder when it is missing.
void write_npy(const std::string& path, const std::vector<int>& shape, int element_bytes,
               const std::vector<float>& values);

}  // namespace al
