// The operations on WMMA fragments. Each lane's part of a load or store goes past the checks as the
// accesses that a GPU makes for it; the elements move when all lanes have come.
#include "common/emulator/wmma.hpp"

#include "common/emulator/decode.hpp"
#include "common/emulator/report.hpp"
#include "common/emulator/worker.hpp"

namespace al::emulator {
namespace {

struct Position {
  int row, column;
};

// Which element of its 16 x 16 matrix a fragment's element e is in this lane. There are 8 in a
// lane; those beyond are the same once more.
Position position(FragmentUse use, int lane, int e) {
  e %= 8;
  if (settings().gpu_fragments) {
    const Position p = {lane / 4 + e / 2 % 2 * 8, lane % 4 * 2 + e % 2 + e / 4 * 8};
    return use == FragmentUse::b ? Position{p.column, p.row} : p;
  }
  // Each element once, for the factor is odd.
  const int factor = use == FragmentUse::a ? 77 : use == FragmentUse::b ? 141 : 203;
  const int i = (factor * (e * 32 + lane) + factor / 2) % 256;
  return {i / 16, i % 16};
}

// f(the lane's element, the one in memory) for all of them.
template <typename F>
void each_element(void* const (&lanes)[32], F f) {
  for (int lane = 0; lane < 32; ++lane) {
    const auto& part = *static_cast<const FragmentPart*>(lanes[lane]);
    for (int e = 0; e < part.count; ++e) {
      const auto [row, column] = position(part.use, lane, e);
      const std::size_t offset = part.columns ? std::size_t{part.ldm} * column + row
                                              : std::size_t{part.ldm} * row + column;
      f(static_cast<std::byte*>(part.x) + e * part.bytes,
        static_cast<std::byte*>(part.memory) + offset * part.bytes, part.bytes);
    }
  }
}

void complete_load(void* const (&lanes)[32]) {
  each_element(lanes, [](std::byte* element, const std::byte* memory, int bytes) {
    std::memcpy(element, memory, bytes);
  });
}
void complete_store(void* const (&lanes)[32]) {
  each_element(lanes, [](const std::byte* element, std::byte* memory, int bytes) {
    std::memcpy(memory, element, bytes);
  });
}

constexpr Collective kLoad = {"load_matrix_sync", &complete_load};
constexpr Collective kStore = {"store_matrix_sync", &complete_store};

// What nvcc makes of it. fp16 and bf16: lane 8i + j fetches half a run, 16 bytes, as in ldmatrix.
// An fp32 accumulator: four accesses of 8 bytes, or eight of 4 where a run is a column. Of accesses
// to one address (ldm = 0) it makes one.
void access_part(Worker& w, const FragmentPart& part, std::size_t pc, Direction direction) {
  const auto begin = reinterpret_cast<std::size_t>(part.memory);
  const int lane = w.current % 32;
  const auto access = [&](int run, int first, int count) {
    w.access(begin + (std::size_t{part.ldm} * run + first) * part.bytes, count * part.bytes, pc,
             direction, false, (direction == Direction::load ? kLoad : kStore).name);
  };
  if (part.use != FragmentUse::accumulator) {
    access(lane % 16, lane / 16 * 8, 8);
    return;
  }
  for (const int high : {0, 8}) {
    for (const int right : {0, 8}) {
      const int row = lane / 4 + high, column = lane % 4 * 2 + right;
      if (!part.columns) {
        if (part.ldm > 0 || high == 0) access(row, column, 2);
      } else if (part.ldm > 0) {
        access(column, row, 1);
        access(column + 1, row, 1);
      } else if (right == 0) {
        access(0, row, 1);
      }
    }
  }
}

void move(const Collective& what, FragmentPart part, std::size_t pc, Where where) {
  {
    const Entered entered;
    Worker& w = entered.worker;
    const auto fault = [&](const std::string& problem, const std::string& look_at) {
      w.fail("misaligned " + std::string(what.name),
             "  thread:  " + w.name(w.current, true) + " at " + to_string(where) + "\n" +
                 "  problem: " + problem + "\n",
             look_at);
    };
    if (reinterpret_cast<std::size_t>(part.memory) % 32 != 0) {
      fault("the matrix begins " + std::to_string(reinterpret_cast<std::size_t>(part.memory) % 32) +
                " bytes past a multiple of 32",
            "the address of the matrix: 256-bit alignment is asked for");
    } else if (part.ldm * part.bytes % 16 != 0) {
      fault(
          "ldm is " + std::to_string(part.ldm) + " elements, " +
              std::to_string(part.ldm * part.bytes) + " bytes",
          "ldm: it must be a multiple of 16 bytes, which is 8 elements of fp16 or bf16, 4 of fp32");
    } else if (w.watched) {
      access_part(w, part, pc, &what == &kLoad ? Direction::load : Direction::store);
    }
  }
  warp_collective(what, &part, where);
}

template <typename T>
void complete_product(void* const (&lanes)[32]) {
  float A[16][16], B[16][16], D[16][16];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& mine = *static_cast<const FragmentProduct<T>*>(lanes[lane]);
    float a[8], b[8];
    decode<T>(mine.a, 8, a);
    decode<T>(mine.b, 8, b);
    for (int e = 0; e < 8; ++e) {
      const auto put = [&](float(&matrix)[16][16], FragmentUse use, float x) {
        const auto [row, column] = position(use, lane, e);
        matrix[row][column] = x;
      };
      put(A, FragmentUse::a, a[e]);
      put(B, FragmentUse::b, b[e]);
      put(D, FragmentUse::accumulator, mine.c[e]);
    }
  }
  for (int m = 0; m < 16; ++m) {
    for (int k = 0; k < 16; ++k) {
      for (int n = 0; n < 16; ++n) D[m][n] += A[m][k] * B[k][n];
    }
  }
  for (int lane = 0; lane < 32; ++lane) {
    const auto& mine = *static_cast<const FragmentProduct<T>*>(lanes[lane]);
    for (int e = 0; e < 8; ++e) {
      const auto [row, column] = position(FragmentUse::accumulator, lane, e);
      mine.d[e] = D[row][column];
    }
  }
}

}  // namespace

void load_fragment(const FragmentPart& part, Where where) {
  move(kLoad, part, reinterpret_cast<std::size_t>(__builtin_return_address(0)), where);
}

void store_fragment(const FragmentPart& part, Where where) {
  move(kStore, part, reinterpret_cast<std::size_t>(__builtin_return_address(0)), where);
}

template <typename T>
void multiply_fragments(const FragmentProduct<T>& product, Where where) {
  static constexpr Collective kMma = {"mma_sync", &complete_product<T>};
  FragmentProduct<T> operands = product;
  warp_collective(kMma, &operands, where);
}

template void multiply_fragments<__half>(const FragmentProduct<__half>&, Where);
template void multiply_fragments<__nv_bfloat16>(const FragmentProduct<__nv_bfloat16>&, Where);

}  // namespace al::emulator
