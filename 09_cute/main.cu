// 09_cute: the sm_80 kernel and the sm_90a kernel against chapter 08.
#include "09_cute/stage.hpp"
#include "common/runner.hpp"

int main(int argc, char** argv) { return al::stage_main(argc, argv, al::stage_09_cute); }
