// Runs the kernel of a lab of this chapter: the student's copy of wmma_v2.cuh or parts.cuh comes
// first.
#include "08_wmma/wmma_v2.cuh"
#include "common/lab/run.hpp"

int main(int argc, char** argv) { return al::lab::run(argc, argv, {.launch = AL_LAB_LAUNCH}); }
