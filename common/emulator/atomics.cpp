// The atomic functions of a kernel, as the host's atomic operations.
#include <atomic>

#include "common/emulator/worker.hpp"

namespace al::emulator {
namespace {

// Tells the shadow. `pc` is the kernel's, because each function below is called from its line.
template <typename T>
std::atomic_ref<T> checked(T* address, void* pc) {
  const Entered entered;
  entered.worker.access(reinterpret_cast<std::size_t>(address), sizeof(T),
                        reinterpret_cast<std::size_t>(pc), Direction::store, true);
  return std::atomic_ref<T>(*address);
}

// Replaces the value by f(value) and returns what it was.
template <typename T, typename F>
T update(std::atomic_ref<T> value, F f) {
  T old = value.load();
  while (!value.compare_exchange_weak(old, f(old))) {
  }
  return old;
}

}  // namespace

template <typename T>
T atomic_add(T* address, T value) {
  return update(checked(address, __builtin_return_address(0)), [=](T x) { return x + value; });
}
template <typename T>
T atomic_min(T* address, T value) {
  return update(checked(address, __builtin_return_address(0)),
                [=](T x) { return std::min(x, value); });
}
template <typename T>
T atomic_max(T* address, T value) {
  return update(checked(address, __builtin_return_address(0)),
                [=](T x) { return std::max(x, value); });
}
template <typename T>
T atomic_exchange(T* address, T value) {
  return checked(address, __builtin_return_address(0)).exchange(value);
}
template <typename T>
T atomic_compare_and_swap(T* address, T expected, T value) {
  checked(address, __builtin_return_address(0)).compare_exchange_strong(expected, value);
  return expected;
}

#define AL_ATOMICS(T)                \
  template T atomic_add(T*, T);      \
  template T atomic_min(T*, T);      \
  template T atomic_max(T*, T);      \
  template T atomic_exchange(T*, T); \
  template T atomic_compare_and_swap(T*, T, T);
AL_ATOMICS(int)
AL_ATOMICS(unsigned)
AL_ATOMICS(unsigned long long)
template float atomic_add(float*, float);
template float atomic_exchange(float*, float);
template double atomic_add(double*, double);

void fence() { running->identity.fenced = true; }

}  // namespace al::emulator
