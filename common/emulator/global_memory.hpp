// The registered buffers, and a shadow that remembers which block touched each byte last.
//
// Blocks of one launch are not ordered. So a byte that two of them touch, one writing, is a race,
// unless both use atomics, or the first wrote, called __threadfence and announced it by an atomic
// that the second has seen. Blocks have serial numbers that grow from launch to launch.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

namespace al::emulator {

constexpr std::uint32_t kHost = 1;  // the serial number of what the host has written

// What the blocks of a launch announce to each other, by the address of the atomic.
class Announcements {
 public:
  // Block `serial` does an atomic at this address. `seen`: the blocks it has heard of; grows.
  void meet(std::size_t address, std::uint32_t serial, bool fenced,
            std::vector<std::uint32_t>& seen);

 private:
  std::mutex mutex_;
  std::unordered_map<std::size_t, std::vector<std::uint32_t>> announced_;
};

// The block that makes an access, and whom it is ordered after.
struct BlockIdentity {
  std::uint32_t serial = 0;
  std::uint32_t launch = 0;         // serial number of the launch itself, before all its blocks
  bool fenced = false;              // has called __threadfence
  std::vector<std::uint32_t> seen;  // blocks whose announcements it has seen

  bool after(std::uint32_t earlier) const {
    return earlier == serial || earlier < launch ||
           (!seen.empty() && std::binary_search(seen.begin(), seen.end(), earlier));
  }
};

class GlobalBuffer {
 public:
  GlobalBuffer(void* data, std::size_t size, const char* called);
  ~GlobalBuffer();
  GlobalBuffer(const GlobalBuffer&) = delete;
  GlobalBuffer& operator=(const GlobalBuffer&) = delete;

  const std::size_t begin, bytes;
  const std::string name;

  bool contains(std::size_t address) const { return address - begin < bytes; }
  void forget();
  void written_by_host(std::size_t offset, std::size_t count);

  enum class Verdict { fine, unwritten, race };
  struct Finding {
    Verdict verdict = Verdict::fine;
    std::size_t offset = 0;
    bool earlier_wrote = false;
    std::uint32_t earlier_serial = 0;  // of the launch: several blocks
    std::uint32_t earlier_pc = 0;      // the lower half of the address of the instruction
  };
  Finding read(std::size_t offset, unsigned count, const BlockIdentity& block, std::uint32_t pc);
  Finding write(std::size_t offset, unsigned count, const BlockIdentity& block, std::uint32_t pc,
                bool atomic);

 private:
  // A stamp is serial << 1 | atomic; 0: never. By byte, and by word of 4 bytes for the places in
  // the code. The operating system gives memory only for the parts that are used.
  static std::uint32_t serial(std::uint32_t stamp) { return stamp >> 1; }
  std::span<std::uint32_t> writer_, reader_, write_pc_, read_pc_;
};

// The buffers as they are now; sorted by address.
std::vector<std::shared_ptr<GlobalBuffer>> global_buffers();

}  // namespace al::emulator
