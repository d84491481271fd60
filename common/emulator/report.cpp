#include "common/emulator/report.hpp"

#include <dlfcn.h>

#include <algorithm>
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

std::string line_of(std::size_t pc) { return lines_of({pc}).front(); }

std::vector<std::string> lines_of(const std::vector<std::size_t>& pcs) {
  std::vector<std::string> lines(pcs.size());
  Dl_info image;
  if (!pcs.empty() && pcs[0] != 0 && dladdr(reinterpret_cast<void*>(pcs[0]), &image) != 0) {
    // The instruction before the return address is the call, hence the - 1. Reports are rare:
    // asking the tool that comes with the compiler is simpler than reading debug information here.
    std::string command = "addr2line -a -i -e '" + std::string(image.dli_fname) + "'";
    for (const std::size_t pc : pcs) {
      const std::size_t at = pc - 1 - reinterpret_cast<std::size_t>(image.dli_fbase);
      char text[32];
      std::snprintf(text, sizeof text, " 0x%zx", at);
      command += text;
    }
    command += " 2>/dev/null";
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> tool(popen(command.c_str(), "r"), pclose);
    // The address (-a), then a line for each function inlined into the next, the innermost first.
    std::size_t next = 0;
    for (char line[4096]; tool && std::fgets(line, sizeof line, tool.get());) {
      std::string found = line;
      found = found.substr(0, std::min(found.find(" (discriminator "), found.find('\n')));
      const auto in = [&](const char* file) { return found.find(file) != std::string::npos; };
      if (found.starts_with("0x")) {
        ++next;
      } else if (found[0] != '?' && !in("common/emulator/") && !in("common/ptx/") && next > 0) {
        std::string& all = lines[next - 1];
        all += (all.empty() ? "" : ", from ") + last_two_parts(found);
      }
    }
  }
  for (std::string& line : lines) {
    if (line.empty()) line = "a line that only a build with -g names";
  }
  return lines;
}

}  // namespace al::emulator
