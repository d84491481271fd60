// The program that runs a student's kernel. It makes the inputs, poisons the outputs, calls the
// launcher and writes what came out, the emulator's counts and its report into a folder. Whether
// that is right is for the judge to say, in another process: this one never sees the answer.
//
// A chapter's lab/run.cu includes the kernel and says which launcher is meant:
//
//   int main(int argc, char** argv) { return al::lab::run(argc, argv, {.launch = AL_LAB_LAUNCH}); }
#pragma once

#include <cstddef>

#include "common/stage.hpp"

namespace al::lab {

struct Kernel {
  void (*launch)(const Problem&, const Arguments&, Stream);
  std::size_t (*workspace)(const Problem&) = nullptr;  // as in Variant
  std::size_t (*zeroed)(const Problem&) = nullptr;
};

// argv: the job's file and the folder for the results. Returns the program's exit code: 0 also
// where the emulator reported a fault, which is a result.
int run(int argc, char** argv, const Kernel& kernel);

}  // namespace al::lab
