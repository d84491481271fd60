// 05_epilogue_norm_v2: all of attention in one kernel, the division at its end.
#include "05_epilogue_norm_v2/stage.hpp"
#include "common/runner.hpp"

int main(int argc, char** argv) {
  return al::stage_main(argc, argv, al::stage_05_epilogue_norm_v2);
}
