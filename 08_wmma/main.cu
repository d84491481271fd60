// 08_wmma: each step of the WMMA kernel against the one before it; the first of them against
// chapter 05.
#include "08_wmma/stage.hpp"
#include "common/runner.hpp"

int main(int argc, char** argv) { return al::stage_main(argc, argv, al::stage_08_wmma); }
