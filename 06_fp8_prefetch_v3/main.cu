// 06_fp8_prefetch_v3: the tensor cores with tiles on their way, one, two and three at a time, and
// in 8 bits; timed against the best of chapter 05.
#include "06_fp8_prefetch_v3/stage.hpp"
#include "common/runner.hpp"

int main(int argc, char** argv) { return al::stage_main(argc, argv, al::stage_06_fp8_prefetch_v3); }
