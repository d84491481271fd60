// One exception type for everything a user can meet, and the exit codes it turns into.
#pragma once

#include <stdexcept>
#include <string>

namespace al {

enum class ExitCode { right = 0, wrong_result = 1, usage = 2, no_device = 77 };

// What the user asked, what is allowed and what to do: one or two plain sentences, no newline.
// usage covers bad options, bad files, unsupported problems and problems too large for the memory.
class Error : public std::runtime_error {
 public:
  Error(ExitCode exit_code, const std::string& message)
      : std::runtime_error(message), code(exit_code) {}
  const ExitCode code;
};

inline Error usage_error(const std::string& message) { return Error(ExitCode::usage, message); }

}  // namespace al
