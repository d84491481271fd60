// Device memory. Holds a thrust::device_vector; only buffer.cu sees Thrust, which takes nvcc
// 16 seconds to read.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

namespace al {

class DeviceBuffer {
 public:
  DeviceBuffer();
  // Uninitialised memory; `name` is what the emulator's reports call it ("Q", "S").
  // Throws Error(usage) when the device has not that much left.
  DeviceBuffer(std::size_t bytes, const char* name);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&&) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&&) noexcept;

  void* data() const;
  std::size_t size() const;  // bytes

  void write(const void* host, std::size_t bytes, std::size_t offset = 0);
  void read(void* host, std::size_t bytes, std::size_t offset = 0) const;
  // Fills with 0xff bytes: a NaN in fp32, fp16 and bf16, and never a kernel's own NaN
  // (arithmetic makes 0x7fff...). The emulator also forgets that it was ever written.
  void poison();

 private:
  struct Memory;
  std::unique_ptr<Memory> memory_;
};

// A buffer with these elements; none: no buffer.
template <typename T>
DeviceBuffer uploaded(const std::vector<T>& elements, const char* name) {
  const std::size_t bytes = elements.size() * sizeof(T);
  if (bytes == 0) return {};
  DeviceBuffer buffer(bytes, name);
  buffer.write(elements.data(), bytes);
  return buffer;
}

}  // namespace al
