// The atomic functions of a kernel, as the host's atomic operations.
#include <algorithm>
#include <atomic>

#include "common/emulator/worker.hpp"

namespace al::emulator {
namespace {

// f(atomic_ref) with the shadow told on both sides: this block announces itself before others can
// see its value, and hears of those whose value it may have seen after. `pc` is the kernel's,
// because each function below is called from its line.
template <typename T, typename F>
T atomically(T* address, void* pc, F f) {
  const Entered entered;
  const auto at = reinterpret_cast<std::size_t>(address);
  entered.worker.access(at, sizeof(T), reinterpret_cast<std::size_t>(pc), Direction::store, true);
  const T old = f(std::atomic_ref<T>(*address));
  entered.worker.hear(at, reinterpret_cast<std::size_t>(pc));
  return old;
}

// Replaces the value by f(value) and returns what it was.
template <typename T, typename F>
T update(T* address, void* pc, F f) {
  return atomically(address, pc, [=](std::atomic_ref<T> value) {
    T old = value.load();
    while (!value.compare_exchange_weak(old, f(old))) {
    }
    return old;
  });
}

}  // namespace

template <typename T>
T atomic_add(T* address, T value) {
  return update(address, __builtin_return_address(0), [=](T x) { return x + value; });
}
template <typename T>
T atomic_min(T* address, T value) {
  return update(address, __builtin_return_address(0), [=](T x) { return std::min(x, value); });
}
template <typename T>
T atomic_max(T* address, T value) {
  return update(address, __builtin_return_address(0), [=](T x) { return std::max(x, value); });
}
template <typename T>
T atomic_exchange(T* address, T value) {
  return update(address, __builtin_return_address(0), [=](T) { return value; });
}
template <typename T>
T atomic_compare_and_swap(T* address, T expected, T value) {
  return update(address, __builtin_return_address(0),
                [=](T x) { return x == expected ? value : x; });
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

void wait_for_kernels_in_front() { running->current_thread().has_waited = true; }

}  // namespace al::emulator
