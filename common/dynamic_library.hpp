// Libraries opened by name at run time, so that nothing needs them to build or to start.
#pragma once

#include <initializer_list>
#include <string>

namespace al {

class DynamicLibrary {
 public:
  // Opens the first of `names` ("libcublas.so.13") that is found: in the directories of the
  // environment variable AL_LIBRARY_PATH (separated by colons), where the system's loader looks,
  // in /usr/local/cuda/lib64, then in build/venv. It stays open until the process ends: CUDA's
  // libraries do not survive being unloaded.
  explicit DynamicLibrary(std::initializer_list<const char*> names);

  explicit operator bool() const { return handle_ != nullptr; }
  void* handle() const { return handle_; }  // what dlopen gave
  // Empty, or which names were looked for and where another place can be named.
  const std::string& why_absent() const { return why_absent_; }

  // The function called `name`, or nullptr. Function is a pointer type: int (*)(const char*).
  template <typename Function>
  Function find(const char* name) const {
    return reinterpret_cast<Function>(address(name));
  }

 private:
  void* address(const char* name) const;

  void* handle_ = nullptr;
  std::string why_absent_;
};

}  // namespace al
