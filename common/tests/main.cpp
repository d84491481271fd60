// The main of every test executable: without a device there is nothing to test, which is neither
// right nor wrong (exit code 77; ctest calls it skipped).
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdio>

#include "common/device.hpp"
#include "common/error.hpp"

int main(int argc, char** argv) {
  try {
    al::device();
  } catch (const al::Error& error) {
    std::printf("SKIP: %s\n", error.what());
    return static_cast<int>(error.code);
  }
  return doctest::Context(argc, argv).run();
}
