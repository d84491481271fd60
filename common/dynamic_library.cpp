#include "common/dynamic_library.hpp"

#include <dlfcn.h>

#include <cstdlib>
#include <sstream>
#include <vector>

namespace al {
namespace {

// `path` is directories with colons between.
void add_directories(std::vector<std::string>& result, const char* path) {
  std::istringstream list(path);
  for (std::string directory; std::getline(list, directory, ':');) {
    if (!directory.empty()) result.push_back(directory + "/");
  }
}

// Where to look, in order; the empty string stands for the system loader's own search.
std::vector<std::string> directories() {
  std::vector<std::string> result;
  if (const char* path = std::getenv("AL_LIBRARY_PATH")) add_directories(result, path);
  result.push_back("");
  result.push_back("/usr/local/cuda/lib64/");
  add_directories(result, AL_VENV_LIBRARIES);
  return result;
}

}  // namespace

DynamicLibrary::DynamicLibrary(std::initializer_list<const char*> names) {
  for (const std::string& directory : directories()) {
    for (const char* name : names) {
      handle_ = dlopen((directory + name).c_str(), RTLD_NOW | RTLD_LOCAL);
      if (handle_) return;
    }
  }
  why_absent_ = "none of";
  for (const char* name : names) why_absent_ += std::string(" ") + name;
  why_absent_ += " could be opened; AL_LIBRARY_PATH can name the directory that has it";
}

void* DynamicLibrary::address(const char* name) const {
  return handle_ ? dlsym(handle_, name) : nullptr;
}

}  // namespace al
