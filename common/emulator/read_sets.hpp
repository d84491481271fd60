// Readers of a byte that nothing orders among themselves, told apart exactly. Each set is a list
// that shares its tail with the set it grew from; the same growth gives the same set, so the many
// bytes of a tile have few sets between them.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "common/emulator/stamp.hpp"

namespace al::emulator {

class ReadSets {
 public:
  void clear() {
    nodes_.assign(1, {});
    grown_.clear();
  }

  // f(stamp) for each reader of a set or of a single stamp, until it returns false.
  template <typename F>
  bool all(Stamp readers, F f) const {
    if (!readers.is_set()) return f(readers);
    for (std::uint32_t n = readers.number(); n != 0; n = nodes_[n].next) {
      if (!f(nodes_[n].reader)) return false;
    }
    return true;
  }

  // `readers` and `mine`, without those that superseded(reader) says are no longer needed.
  template <typename F>
  Stamp add(Stamp readers, Stamp mine, F superseded) {
    const std::uint64_t key = std::uint64_t{readers.bits} << 32 | mine.bits;
    if (const auto known = grown_.find(key); known != grown_.end()) return known->second;
    std::uint32_t head = 0;
    all(readers, [&](Stamp reader) {
      if (reader != mine && !superseded(reader)) head = push(reader, head);
      return true;
    });
    return grown_[key] = head == 0 ? mine : Stamp::set(push(mine, head));
  }

 private:
  struct Node {
    Stamp reader;
    std::uint32_t next = 0;
  };
  std::uint32_t push(Stamp reader, std::uint32_t next) {
    nodes_.push_back({reader, next});
    return static_cast<std::uint32_t>(nodes_.size() - 1);
  }

  std::vector<Node> nodes_ = std::vector<Node>(1);
  std::unordered_map<std::uint64_t, Stamp> grown_;
};

}  // namespace al::emulator
