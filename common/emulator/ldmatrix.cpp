// ldmatrix and stmatrix. Each lane's row goes past the checks as an access of 16 bytes by that
// lane; the elements move when all lanes have come.
#include "common/emulator/report.hpp"
#include "common/emulator/tensor_core.hpp"
#include "common/emulator/worker.hpp"

namespace al::emulator {
namespace {

struct Operands {
  std::byte* row;
  std::uint32_t registers[4];
  int matrices;
  bool transposed;
};

// Moves register i of a lane: an element pair of a row, or, transposed, of a column.
template <bool LOAD>
void move(void* const (&lanes)[32], int lane, int i) {
  auto& mine = *static_cast<Operands*>(lanes[lane]);
  const int major = lane / 4, minor = 2 * (lane % 4);
  const auto part = [&](int row, int column, int first, std::size_t bytes) {
    std::byte* memory = static_cast<const Operands*>(lanes[8 * i + row])->row + 2 * column;
    auto* bytes_of_register = reinterpret_cast<std::byte*>(&mine.registers[i]) + 2 * first;
    std::memcpy(LOAD ? bytes_of_register : memory, LOAD ? memory : bytes_of_register, bytes);
  };
  if (!mine.transposed) return part(major, minor, 0, 4);
  part(minor, major, 0, 2);
  part(minor + 1, major, 1, 2);
}

template <bool LOAD>
void complete(void* const (&lanes)[32]) {
  for (int lane = 0; lane < 32; ++lane) {
    const int matrices = static_cast<const Operands*>(lanes[lane])->matrices;
    for (int i = 0; i < matrices; ++i) move<LOAD>(lanes, lane, i);
  }
}

constexpr Collective kLoad = {"ldmatrix", &complete<true>};
constexpr Collective kStore = {"stmatrix", &complete<false>};

void access_row(Worker& w, const Operands& operands, const Collective& what, std::size_t pc,
                Where where) {
  const auto address = reinterpret_cast<std::size_t>(operands.row);
  if (w.current % 32 >= 8 * operands.matrices) return;
  const auto who = [&] {
    return "  thread:  " + w.name(w.current, true) + " at " + to_string(where) + "\n";
  };
  if (!w.shared.contains(address)) {
    w.fail(std::string(what.name) + " of something else than shared memory", who(),
           "the address that this lane gives: a row of an array taken from the SharedArena");
  } else if (address % 16 != 0) {
    w.fail("misaligned " + std::string(what.name), who(),
           "the row's address: it must be a multiple of 16 bytes, and so must the row length of "
           "the array");
  } else if (w.watched) {
    w.access(address, 16, pc, &what == &kLoad ? Direction::load : Direction::store, false,
             what.name);
  }
}

}  // namespace

uint4 ldmatrix(const void* row, int matrices, bool transposed, Where where) {
  Operands operands{static_cast<std::byte*>(const_cast<void*>(row)), {}, matrices, transposed};
  {
    const Entered entered;
    access_row(entered.worker, operands, kLoad,
               reinterpret_cast<std::size_t>(__builtin_return_address(0)), where);
  }
  warp_collective(kLoad, &operands, where);
  const auto& r = operands.registers;
  return {r[0], r[1], r[2], r[3]};
}

void stmatrix(void* row, uint4 r, int matrices, bool transposed, Where where) {
  Operands operands{static_cast<std::byte*>(row), {r.x, r.y, r.z, r.w}, matrices, transposed};
  {
    const Entered entered;
    access_row(entered.worker, operands, kStore,
               reinterpret_cast<std::size_t>(__builtin_return_address(0)), where);
  }
  warp_collective(kStore, &operands, where);
}

}  // namespace al::emulator
