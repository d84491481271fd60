// 07_flash_decoding: one query row against a long cache; chapter 05's kernel first, then each rung
// against the one before it.
#include "07_flash_decoding/stage.hpp"
#include "common/runner.hpp"

int main(int argc, char** argv) { return al::stage_main(argc, argv, al::stage_07_flash_decoding); }
