// Runs the kernel of a lab of this chapter: the student's copy of pv.cuh comes first.
#include "03_pv/pv.cuh"
#include "common/lab/run.hpp"

int main(int argc, char** argv) { return al::lab::run(argc, argv, {.launch = AL_LAB_LAUNCH}); }
