// --load and --save: tensors as .npy files in a folder.
#pragma once

#include <string>

#include "common/data.hpp"
#include "common/problem.hpp"
#include "common/workbench.hpp"

namespace al {

// q.npy, k.npy and v.npy, as far as the operation reads them, rounded to the problem's dtypes: for
// 8 bits, which NumPy does not have, with a scale for each head as store() chooses it. S and
// P are made from `distribution` and `seed` as ever. Throws Error(usage).
HostInputs load_inputs(const std::string& directory, const Problem& problem,
                       Distribution distribution, std::uint64_t seed);

// Writes what the last check left: s.npy, its masked entries -inf; p.npy, its masked entries 0; or
// o.npy, and lse.npy when it is all of attention.
void save_result(const std::string& directory, const Workbench& bench, const Problem& problem);

}  // namespace al
