// The functions that -fsanitize=thread makes a kernel call at each load and store. The compiler
// puts the calls in; ThreadSanitizer itself is not linked. They must not throw: the compiler relies
// on it. A fault switches to the scheduler instead, for good.
//
// Reads in blocks that are not watched cost a call and two loads. Writes are always looked at:
// whether an element of the output was written must be known for all of them.
#include "common/emulator/report.hpp"
#include "common/emulator/worker.hpp"

using al::emulator::Direction;
using al::emulator::Entered;
using al::emulator::running;
using al::emulator::Worker;

namespace {

inline std::size_t number(const void* pointer) { return reinterpret_cast<std::size_t>(pointer); }

void misaligned(Worker& w, std::size_t address, unsigned bytes, std::size_t pc) {
  w.fail("misaligned access",
         "  thread:  " + w.name(w.current) + " accesses " + std::to_string(bytes) +
             " bytes at an address that is " + std::to_string(address % bytes) +
             " past a multiple of " + std::to_string(bytes) + ", at " + al::emulator::line_of(pc) +
             "\n",
         "the pointer that was cast to a vector type: the offset, or a row length, is not "
         "a multiple of the vector");
}

inline void hook(void* pointer, unsigned bytes, const void* pc, Direction direction) {
  if (!running || (direction == Direction::load && !running->watched)) return;
  const Entered entered;
  Worker& w = entered.worker;
  if (number(pointer) % bytes != 0) return misaligned(w, number(pointer), bytes, number(pc));
  w.access(number(pointer), bytes, number(pc), direction);
}

// Types whose alignment is less than their size are loaded in parts on a GPU.
inline void hook_parts(void* pointer, unsigned bytes, const void* pc, Direction direction) {
  if (!running || (direction == Direction::load && !running->watched)) return;
  const Entered entered;
  for (unsigned part; bytes > 0; bytes -= part, pointer = static_cast<char*>(pointer) + part) {
    part = 4;
    while (part > bytes || number(pointer) % part != 0) part /= 2;
    entered.worker.access(number(pointer), part, number(pc), direction);
  }
}

}  // namespace

#define AL_PC __builtin_return_address(0)
#define AL_HOOKS(BYTES)                                                                          \
  void __tsan_read##BYTES(void* p) { hook(p, BYTES, AL_PC, Direction::load); }                   \
  void __tsan_write##BYTES(void* p) { hook(p, BYTES, AL_PC, Direction::store); }                 \
  void __tsan_unaligned_read##BYTES(void* p) { hook_parts(p, BYTES, AL_PC, Direction::load); }   \
  void __tsan_unaligned_write##BYTES(void* p) { hook_parts(p, BYTES, AL_PC, Direction::store); } \
  void __tsan_volatile_read##BYTES(void* p) { hook(p, BYTES, AL_PC, Direction::load); }          \
  void __tsan_volatile_write##BYTES(void* p) { hook(p, BYTES, AL_PC, Direction::store); }

extern "C" {
AL_HOOKS(1)
AL_HOOKS(2)
AL_HOOKS(4)
AL_HOOKS(8)
AL_HOOKS(16)
void __tsan_read_range(void* p, unsigned long bytes) {
  hook_parts(p, static_cast<unsigned>(bytes), AL_PC, Direction::load);
}
void __tsan_write_range(void* p, unsigned long bytes) {
  hook_parts(p, static_cast<unsigned>(bytes), AL_PC, Direction::store);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
