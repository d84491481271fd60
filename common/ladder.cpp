// ladder: every stage in one table, and two results side by side.
#include "common/runner.hpp"
#include "common/stages.hpp"

int main(int argc, char** argv) { return al::ladder_main(argc, argv, al::all_stages()); }
