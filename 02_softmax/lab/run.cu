// Runs the kernel of a lab of this chapter: the student's copy of softmax.cuh comes first.
#include "02_softmax/softmax.cuh"
#include "common/lab/run.hpp"

int main(int argc, char** argv) { return al::lab::run(argc, argv, {.launch = AL_LAB_LAUNCH}); }
