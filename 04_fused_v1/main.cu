// 04_fused_v1: all of attention in one kernel, against the three of chapter 03.
#include "04_fused_v1/stage.hpp"
#include "common/runner.hpp"

int main(int argc, char** argv) { return al::stage_main(argc, argv, al::stage_04_fused_v1); }
