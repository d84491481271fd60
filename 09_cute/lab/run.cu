// Runs the kernel of a lab of this chapter: the student's copy of layouts.cuh or one_warp.cuh
// comes first.
#include "09_cute/one_warp.cuh"
#include "common/lab/run.hpp"

int main(int argc, char** argv) { return al::lab::run(argc, argv, {.launch = AL_LAB_LAUNCH}); }
