#include "common/emulator/global_memory.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <new>

#include "common/emulator/launch.hpp"

namespace al::emulator {
namespace {

std::mutex registry_mutex;
std::vector<std::shared_ptr<GlobalBuffer>> registry;

// Zeros that cost nothing until they are touched.
std::span<std::uint32_t> zeros(std::size_t count) {
  void* memory = mmap(nullptr, count * 4, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  return {static_cast<std::uint32_t*>(memory), count};
}

GlobalBuffer* find(const void* data) {
  for (const auto& buffer : registry) {
    if (buffer->contains(reinterpret_cast<std::size_t>(data))) return buffer.get();
  }
  return nullptr;
}

}  // namespace

void Announcements::meet(std::size_t address, std::uint32_t serial, bool fenced,
                         std::vector<std::uint32_t>& seen) {
  const std::lock_guard lock(mutex_);
  std::vector<std::uint32_t>& here = announced_[address];
  const auto add = [](std::vector<std::uint32_t>& to, std::uint32_t block) {
    const auto at = std::lower_bound(to.begin(), to.end(), block);
    if (at == to.end() || *at != block) to.insert(at, block);
  };
  if (fenced) {
    add(here, serial);
    for (const std::uint32_t block : seen) add(here, block);
  }
  for (const std::uint32_t block : here) add(seen, block);
}

GlobalBuffer::GlobalBuffer(void* data, std::size_t size, const char* called)
    : begin(reinterpret_cast<std::size_t>(data)),
      bytes(size),
      name(called),
      writer_(zeros(size)),
      reader_(zeros(size)),
      write_pc_(zeros(size / 4 + 1)),
      read_pc_(zeros(size / 4 + 1)) {}

GlobalBuffer::~GlobalBuffer() {
  for (const auto shadow : {writer_, reader_, write_pc_, read_pc_}) {
    munmap(shadow.data(), shadow.size_bytes());
  }
}

void GlobalBuffer::forget() { madvise(writer_.data(), writer_.size_bytes(), MADV_DONTNEED); }

void GlobalBuffer::written_by_host(std::size_t offset, std::size_t count) {
  std::fill_n(writer_.begin() + offset, std::min(count, bytes - offset), kHost << 1);
}

GlobalBuffer::Finding GlobalBuffer::read(std::size_t offset, unsigned count,
                                         const BlockIdentity& block, std::uint32_t pc) {
  std::uint32_t* writer = &writer_[offset];
  std::uint32_t* reader = &reader_[offset];
  bool uniform = true;  // nearly always: then one byte stands for all
  for (unsigned i = 1; i < count; ++i) {
    uniform &= writer[i] == writer[0] && reader[i] == reader[0];
  }
  for (unsigned i = 0; i < (uniform ? 1 : count); ++i) {
    if (writer[i] == 0) return {Verdict::unwritten, offset + i};
    if (!block.after(serial(writer[i]))) {
      return {Verdict::race, offset + i, true, serial(writer[i]), write_pc_[(offset + i) / 4]};
    }
    reader[i] = (block.after(serial(reader[i])) ? block.serial : block.launch) << 1;
  }
  if (uniform) std::fill_n(reader, count, reader[0]);
  for (std::size_t word = offset / 4; word < (offset + count + 3) / 4; ++word) read_pc_[word] = pc;
  return {};
}

GlobalBuffer::Finding GlobalBuffer::write(std::size_t offset, unsigned count,
                                          const BlockIdentity& block, std::uint32_t pc,
                                          bool atomic) {
  for (std::size_t at = offset; at < offset + count; ++at) {
    std::uint32_t& writer = writer_[at];
    const bool ordered = block.after(serial(writer));
    if (!ordered && !(atomic && (writer & 1))) {
      return {Verdict::race, at, true, serial(writer), write_pc_[at / 4]};
    }
    if (!block.after(serial(reader_[at]))) {
      return {Verdict::race, at, false, serial(reader_[at]), read_pc_[at / 4]};
    }
    writer = (ordered ? block.serial : block.launch) << 1 | static_cast<std::uint32_t>(atomic);
  }
  for (std::size_t word = offset / 4; word < (offset + count + 3) / 4; ++word) write_pc_[word] = pc;
  return {};
}

std::vector<std::shared_ptr<GlobalBuffer>> global_buffers() {
  const std::lock_guard lock(registry_mutex);
  return registry;
}

void register_global(void* data, std::size_t bytes, const char* name) {
  if (bytes == 0) return;
  const std::lock_guard lock(registry_mutex);
  registry.push_back(std::make_shared<GlobalBuffer>(data, bytes, name));
}

void unregister_global(void* data) {
  const std::lock_guard lock(registry_mutex);
  std::erase_if(registry, [data](const auto& buffer) {
    return buffer->begin == reinterpret_cast<std::size_t>(data);
  });
}

void forget_global(void* data) {
  const std::lock_guard lock(registry_mutex);
  if (GlobalBuffer* buffer = find(data)) buffer->forget();
}

void note_written(void* data, std::size_t bytes) {
  const std::lock_guard lock(registry_mutex);
  if (GlobalBuffer* buffer = find(data)) {
    buffer->written_by_host(reinterpret_cast<std::size_t>(data) - buffer->begin, bytes);
  }
}

}  // namespace al::emulator
