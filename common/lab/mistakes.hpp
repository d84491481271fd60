// The usual mistakes, each with the sentence that tells the student.
#pragma once

#include <string>
#include <vector>

#include "common/lab/oracle.hpp"

namespace al::lab {

struct NamedMistake {
  std::string sentence;  // goes on from "What you wrote equals the answer "
  Mistake mistake;
};

// Those that can change the answer of this case.
std::vector<NamedMistake> usual_mistakes(const Case& c, const Rules& rules, int block_m,
                                         int block_n);

}  // namespace al::lab
