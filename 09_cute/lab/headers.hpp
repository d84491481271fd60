// What the programs of this chapter's labs include and no student edits: compiled once
// (al_add_labs), for CuTe alone takes half of a compilation.
#include <algorithm>
#include <cmath>

#include "09_cute/instructions.cuh"
#include "common/kernel_shape.cuh"
#include "common/lab/run.hpp"
#include "common/launch.cuh"
#include "common/ptx/ldmatrix.cuh"
#include "common/ptx/mma.cuh"
#include "common/shared_arena.cuh"
