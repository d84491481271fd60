// Runs the kernel of a lab of this chapter: the student's copy of fused.cuh comes first.
#include "04_fused_v1/fused.cuh"
#include "common/lab/run.hpp"

int main(int argc, char** argv) { return al::lab::run(argc, argv, {.launch = AL_LAB_LAUNCH}); }
