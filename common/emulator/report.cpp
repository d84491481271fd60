#include "common/emulator/report.hpp"

#include <dlfcn.h>

#include <cstdio>
#include <memory>

namespace al::emulator {
namespace {

std::string last_two_parts(const std::string& path) {
  const std::size_t last = path.rfind('/');
  if (last == std::string::npos || last == 0) return path;
  const std::size_t before = path.rfind('/', last - 1);
  return before == std::string::npos ? path : path.substr(before + 1);
}

}  // namespace

std::string to_string(uint3 index) {
  return "(" + std::to_string(index.x) + "," + std::to_string(index.y) + "," +
         std::to_string(index.z) + ")";
}

uint3 unflatten(std::size_t linear, dim3 size) {
  const std::size_t plane = std::size_t{size.x} * size.y;
  return {static_cast<unsigned>(linear % size.x), static_cast<unsigned>(linear / size.x % size.y),
          static_cast<unsigned>(linear / plane)};
}

std::string to_string(const std::source_location& where) {
  return last_two_parts(where.file_name()) + ":" + std::to_string(where.line());
}

std::string line_of(std::size_t pc) {
  const std::string unknown = "a line that only a build with -g names";
  Dl_info image;
  if (pc == 0 || dladdr(reinterpret_cast<void*>(pc), &image) == 0) return unknown;
  // The instruction before the return address is the call, hence the - 1. Reports are rare: asking
  // the tool that comes with the compiler is simpler than reading debug information here.
  char command[4096];
  std::snprintf(command, sizeof command, "addr2line -i -e '%s' 0x%zx 2>/dev/null", image.dli_fname,
                pc - 1 - reinterpret_cast<std::size_t>(image.dli_fbase));
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> tool(popen(command, "r"), pclose);
  // One line for each function inlined into the next, the innermost first.
  std::string lines;
  for (char line[4096]; tool && std::fgets(line, sizeof line, tool.get());) {
    std::string found = line;
    found.erase(found.find_first_of(" \n"));  // the rest is "(discriminator 2)"
    const auto in = [&](const char* file) { return found.find(file) != std::string::npos; };
    if (found[0] == '?' || in("common/emulator/") || in("common/ptx/")) continue;
    lines += (lines.empty() ? "" : ", from ") + last_two_parts(found);
  }
  return lines.empty() ? unknown : lines;
}

}  // namespace al::emulator
