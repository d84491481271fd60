// The memory is a thrust::device_vector on both back ends: nvcc gives it to the GPU, and g++ with
// Thrust's C++ system gives it to the emulator.
#include "common/buffer.hpp"

#include <thrust/copy.h>
#include <thrust/device_ptr.h>
#include <thrust/device_vector.h>

#include <new>
#include <stdexcept>
#include <string>

#include "common/device.hpp"
#include "common/error.hpp"

#ifdef AL_EMULATOR
#include <sanitizer/asan_interface.h>

#include <cstring>

#include "common/emulator/launch.hpp"
#else
#include "common/cuda_check.cuh"
#endif

namespace al {
namespace {

// Thrust initialises what it allocates. With this element that costs nothing: its constructor
// is not trivial, so Thrust calls it instead of filling with zeros, and it does nothing.
// Its alignment is the one cudaMalloc promises.
struct alignas(256) Line {
  unsigned char bytes[256];
  __host__ __device__ Line() {}
};

}  // namespace

struct DeviceBuffer::Memory {
  Memory(std::size_t bytes, [[maybe_unused]] const char* name)
      : size(bytes), lines((bytes + sizeof(Line) - 1) / sizeof(Line)) {
#ifdef AL_EMULATOR
    emulator::register_global(data(), size, name);
    ASAN_POISON_MEMORY_REGION(data() + size, lines.size() * sizeof(Line) - size);
#endif
  }
#ifdef AL_EMULATOR
  ~Memory() {
    ASAN_UNPOISON_MEMORY_REGION(data(), lines.size() * sizeof(Line));
    emulator::unregister_global(data());
  }
#endif

  unsigned char* data() {
    return reinterpret_cast<unsigned char*>(thrust::raw_pointer_cast(lines.data()));
  }

  std::size_t size;
  thrust::device_vector<Line> lines;
};

namespace {

thrust::device_ptr<unsigned char> range(void* data, std::size_t size, std::size_t offset,
                                        std::size_t bytes) {
  if (offset > size || bytes > size - offset) {
    throw std::out_of_range("a copy leaves its DeviceBuffer");
  }
  return thrust::device_pointer_cast(static_cast<unsigned char*>(data) + offset);
}

}  // namespace

DeviceBuffer::DeviceBuffer() = default;
DeviceBuffer::~DeviceBuffer() = default;
DeviceBuffer::DeviceBuffer(DeviceBuffer&&) noexcept = default;
DeviceBuffer& DeviceBuffer::operator=(DeviceBuffer&&) noexcept = default;

DeviceBuffer::DeviceBuffer(std::size_t bytes, const char* name) {
  const auto too_large = [&] {
    constexpr std::size_t kMiB = 1 << 20;
    return usage_error(std::string("No room for ") + name + ": it takes " +
                       std::to_string(bytes / kMiB) + " MiB and the device has " +
                       std::to_string(free_memory() / kMiB) +
                       " MiB free. Choose a smaller problem.");
  };
  if (bytes == 0) return;
  if (bytes > free_memory()) throw too_large();
  try {
    memory_ = std::make_unique<Memory>(bytes, name);
  } catch (const std::bad_alloc&) {
    throw too_large();
  }
}

void* DeviceBuffer::data() const { return memory_ ? memory_->data() : nullptr; }
std::size_t DeviceBuffer::size() const { return memory_ ? memory_->size : 0; }

void DeviceBuffer::write(const void* host, std::size_t bytes, std::size_t offset) {
  const auto to = range(data(), size(), offset, bytes);
  thrust::copy_n(static_cast<const unsigned char*>(host), bytes, to);
#ifdef AL_EMULATOR
  emulator::note_written(to.get(), bytes);
#endif
}

void DeviceBuffer::read(void* host, std::size_t bytes, std::size_t offset) const {
  const auto from = range(data(), size(), offset, bytes);
  thrust::copy_n(from, bytes, static_cast<unsigned char*>(host));
}

void DeviceBuffer::poison() {
  if (size() == 0) return;
#ifdef AL_EMULATOR
  std::memset(data(), 0xff, size());
  emulator::forget_global(data());
#else
  check(cudaMemset(data(), 0xff, size()), "cudaMemset");
#endif
}

}  // namespace al
