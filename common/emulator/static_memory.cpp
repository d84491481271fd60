#include "common/emulator/static_memory.hpp"

#include <link.h>

#include <utility>
#include <vector>

namespace al::emulator {
namespace {

using Ranges = std::vector<std::pair<std::size_t, std::size_t>>;  // begin, bytes

Ranges loaded_images() {
  Ranges ranges;
  dl_iterate_phdr(
      [](dl_phdr_info* image, std::size_t, void* out) {
        for (int i = 0; i < image->dlpi_phnum; ++i) {
          const auto& segment = image->dlpi_phdr[i];
          if (segment.p_type != PT_LOAD) continue;
          static_cast<Ranges*>(out)->emplace_back(image->dlpi_addr + segment.p_vaddr,
                                                  segment.p_memsz);
        }
        return 0;
      },
      &ranges);
  return ranges;
}

}  // namespace

bool is_static(std::size_t address) {
  static const Ranges ranges = loaded_images();
  for (const auto& [begin, bytes] : ranges) {
    if (address - begin < bytes) return true;
  }
  return false;
}

}  // namespace al::emulator
