// Runs the kernel of a lab of this chapter: the student's copy of qk.cuh comes first.
#include "01_naive_qk/qk.cuh"
#include "common/lab/run.hpp"

int main(int argc, char** argv) { return al::lab::run(argc, argv, {.launch = AL_LAB_LAUNCH}); }
