// A fiber: a stack and a place to continue. Switching to one costs a few nanoseconds: it saves
// the callee's registers and swaps stack pointers, nothing else.
//
// A CUDA thread that has to wait switches back to the scheduler. One that did something wrong
// switches back too and is never continued: its stack is simply used again, so nothing unwinds.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <boost/context/detail/fcontext.hpp>
#include <cstddef>
#include <new>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace al::emulator {

class Fiber {
 public:
  Fiber() {
    // Memory is only taken for the pages that are used. The lowest page stays forbidden, so that
    // a stack that grows too far stops the program at once.
    void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    stack_ = static_cast<std::byte*>(memory);
    // Tops at the same place of every stack would all compete for the same lines of the cache.
    static std::atomic<std::size_t> colour{0};
    top_ = stack_ + kBytes - colour++ % 64 * 192;
    mprotect(stack_, kGuardBytes, PROT_NONE);
  }
  ~Fiber() {
    unmark();
    munmap(stack_, kBytes);
  }
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Begins anew: the next resume() calls entry(argument), which must end in suspend(true).
  void start(void (*entry)(void*), void* argument) {
    unmark();
    entry_ = entry;
    argument_ = argument;
    context_ = boost::context::detail::make_fcontext(top_, kBytes / 2, &run);
#ifdef __SANITIZE_ADDRESS__
    own_fake_stack_ = nullptr;
#endif
  }

  // Called by the scheduler: continues the fiber until it suspends.
  void resume() {
#ifdef __SANITIZE_ADDRESS__
    void* fake_stack;
    __sanitizer_start_switch_fiber(&fake_stack, stack_ + kGuardBytes, kBytes - kGuardBytes);
#endif
    context_ = boost::context::detail::jump_fcontext(context_, this).fctx;
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
  }

  // Called on the fiber: back to the scheduler. `forever`: it will not be resumed.
  void suspend([[maybe_unused]] bool forever = false) {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_start_switch_fiber(forever ? nullptr : &own_fake_stack_, scheduler_stack_,
                                   scheduler_stack_bytes_);
#endif
    scheduler_ = boost::context::detail::jump_fcontext(scheduler_, nullptr).fctx;
    arrived();
  }

  bool owns(std::size_t address) const {
    return address - reinterpret_cast<std::size_t>(stack_) < kBytes;
  }

 private:
#ifdef __SANITIZE_ADDRESS__
  // ASan gives every local variable a place and red zones of its own: a kernel in CuTe takes 300
  // KB.
  static constexpr std::size_t kBytes = 2 << 20;
#else
  static constexpr std::size_t kBytes = 128 << 10;
#endif
  static constexpr std::size_t kGuardBytes = 4096;

  static void run(boost::context::detail::transfer_t from) {
    Fiber* fiber = static_cast<Fiber*>(from.data);
    fiber->scheduler_ = from.fctx;
    fiber->arrived();
    fiber->entry_(fiber->argument_);
  }

  // Functions that never returned have left ASan's red zones on the stack: above the place where
  // the fiber stopped, which is what a context is. To clear all of the stack for each thread of
  // each block would be more work than the kernels.
  void unmark() {
#ifdef __SANITIZE_ADDRESS__
    if (context_ == nullptr) return;
    std::byte* stopped = static_cast<std::byte*>(context_);
    __asan_unpoison_memory_region(stopped, stack_ + kBytes - stopped);
#endif
  }

  // Tells ASan that this stack is the current one, and learns which one was.
  void arrived() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(own_fake_stack_, &scheduler_stack_, &scheduler_stack_bytes_);
#endif
  }

  std::byte* stack_;
  std::byte* top_;
  boost::context::detail::fcontext_t context_ = nullptr, scheduler_ = nullptr;
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
#ifdef __SANITIZE_ADDRESS__
  void* own_fake_stack_ = nullptr;
  const void* scheduler_stack_ = nullptr;
  std::size_t scheduler_stack_bytes_ = 0;
#endif
};

}  // namespace al::emulator
