// Runs the graded variant of this chapter's lab: one dtype, one tile.
#include "08_wmma/wmma_v1.cuh"
#include "common/lab/run.hpp"

int main(int argc, char** argv) { return al::lab::run(argc, argv, {.launch = AL_LAB_LAUNCH}); }
