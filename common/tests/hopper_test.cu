// mbarriers, bulk copies and TMA, on a GPU of sm_90 and in the emulator alike.
#include <doctest/doctest.h>

#include <numeric>
#include <vector>

#include "common/buffer.hpp"
#include "common/device.hpp"
#include "common/launch.cuh"
#include "common/ptx/bulk_copy.cuh"
#include "common/ptx/dependent_launch.cuh"
#include "common/ptx/mbarrier.cuh"
#include "common/ptx/named_barrier.cuh"
#include "common/ptx/setmaxnreg.cuh"
#include "common/ptx/tma.cuh"
#include "common/tensor_map.hpp"

namespace al {
namespace {

DeviceBuffer numbers(int count, const char* name) {
  std::vector<std::uint16_t> values(count);
  std::iota(values.begin(), values.end(), std::uint16_t{0});
  DeviceBuffer buffer(count * 2, name);
  buffer.write(values.data(), count * 2);
  return buffer;
}

std::vector<std::uint16_t> on_host(const DeviceBuffer& buffer) {
  std::vector<std::uint16_t> values(buffer.size() / 2);
  buffer.read(values.data(), buffer.size());
  return values;
}

// A producer warp and two consumer warps with a ring of STAGES: the sum of each thread's column of
// `in` [chunks, 64], and the chunks themselves back to `copy` by bulk stores.
template <int STAGES>
__global__ void __launch_bounds__(96) ring(const int* in, int* sums, int* copy, int chunks) {
  SharedArena shared;
  auto& stage = shared.take<int[STAGES][64]>("stage");
  auto& full = shared.take<std::uint64_t[STAGES]>("full");
  auto& empty = shared.take<std::uint64_t[STAGES]>("empty");
  if (threadIdx.x == 0) {
    for (int s = 0; s < STAGES; ++s) {
      mbarrier_init(&full[s], 1);
      mbarrier_init(&empty[s], 2);  // warps
    }
    fence_mbarrier_init();
  }
  __syncthreads();  // the barriers are there

  if (threadIdx.x < 32) {
    if (threadIdx.x != 0) return;
    for (int i = 0; i < chunks; ++i) {
      const int s = i % STAGES;
      mbarrier_wait(&empty[s], (i / STAGES + 1) % 2);
      mbarrier_arrive_expect_tx(&full[s], 256);
      bulk_copy(stage[s], in + i * 64, 256, &full[s]);
    }
    return;
  }
  const int t = threadIdx.x - 32;
  int sum = 0;
  for (int i = 0; i < chunks; ++i) {
    const int s = i % STAGES;
    mbarrier_wait(&full[s], i / STAGES % 2);
    sum += stage[s][t];
    named_barrier_sync(1, 64);  // both warps have read the chunk as it came
    stage[s][t] += 1;
    fence_proxy_async();
    named_barrier_sync(1, 64);  // and changed it
    if (t == 0) {
      bulk_store(copy + i * 64, stage[s], 256);
      bulk_store_commit();
      bulk_store_wait_read<0>();
    }
    __syncwarp();
    if (t % 32 == 0) mbarrier_arrive(&empty[s]);
  }
  if (t == 0) bulk_store_wait<0>();
  sums[t] = sum;
}

TEST_CASE("a ring of stages between a producer and two consumer warps") {
  if (device().sm < 90) return;
  constexpr int CHUNKS = 11;
  std::vector<int> values(CHUNKS * 64);
  std::iota(values.begin(), values.end(), 0);
  DeviceBuffer in(values.size() * 4, "in"), sums(256, "sums"), copy(values.size() * 4, "copy");
  in.write(values.data(), in.size());
  const auto run = [&](auto kernel, std::size_t bytes) {
    sums.poison();
    copy.poison();
    launch(kernel, {"ring", dim3(1), dim3(96), bytes}, static_cast<const int*>(in.data()),
           static_cast<int*>(sums.data()), static_cast<int*>(copy.data()), CHUNKS);
    std::vector<int> got(64), copied(values.size());
    sums.read(got.data(), 256);
    copy.read(copied.data(), copy.size());
    for (int t = 0; t < 64; ++t) CHECK(got[t] == CHUNKS * t + 64 * (CHUNKS - 1) * CHUNKS / 2);
    for (std::size_t i = 0; i < values.size(); ++i) CHECK(copied[i] == values[i] + 1);
  };
  run(ring<1>, shared_bytes<int[1][64], std::uint64_t[1], std::uint64_t[1]>());
  run(ring<2>, shared_bytes<int[2][64], std::uint64_t[2], std::uint64_t[2]>());
  run(ring<3>, shared_bytes<int[3][64], std::uint64_t[3], std::uint64_t[3]>());
}

// The box of the tensor at x, as it lies in shared memory, to `out`, and back to another tensor.
template <int RANK, int BYTES>
__global__ void load_box(const __grid_constant__ TensorMap from,
                         const __grid_constant__ TensorMap to, int x0, int x1, int x2,
                         std::uint16_t* out, bool store) {
  SharedArena shared;
  struct alignas(1024) Tile {
    std::uint16_t elements[BYTES / 2];
  };
  auto& tile = shared.take<Tile>("tile");
  auto& full = shared.take<std::uint64_t[1]>("full");
  if (threadIdx.x == 0) {
    tma_prefetch(from);
    mbarrier_init(full, 1);
    fence_mbarrier_init();
    mbarrier_arrive_expect_tx(full, BYTES);
    if constexpr (RANK == 2) tma_load(tile.elements, from, full, {x0, x1});
    if constexpr (RANK == 3) tma_load<L2Hint::evict_last>(tile.elements, from, full, {x0, x1, x2});
    if constexpr (RANK == 4) tma_load(tile.elements, from, full, {x0, x1, x2, 0});
    if constexpr (RANK == 5) tma_load(tile.elements, from, full, {x0, x1, x2, 0, 0});
  }
  __syncthreads();  // the barrier is there
  while (!mbarrier_try_wait(full, 0)) {
  }
  for (int i = threadIdx.x; i < BYTES / 2; i += 32) out[i] = tile.elements[i];
  if (store && threadIdx.x == 0) {
    if constexpr (RANK == 2) tma_store(to, tile.elements, {x0, x1});
    if constexpr (RANK == 3) tma_store(to, tile.elements, {x0, x1, x2});
    if constexpr (RANK == 4) tma_store(to, tile.elements, {x0, x1, x2, 0});
    if constexpr (RANK == 5) tma_store(to, tile.elements, {x0, x1, x2, 0, 0});
    bulk_store_commit();
    bulk_store_wait<0>();
  }
}

// Of a tensor [planes][rows][columns] whose element is its own number, with room after each row.
template <int RANK, int BOX_X, int BOX_Y, int BOX_Z>
void check_box(Swizzle swizzle, int x0, int x1, int x2, bool store = true) {
  constexpr int COLUMNS = 70, PITCH = 80, ROWS = 19, PLANES = 3;
  constexpr int BYTES = 2 * BOX_X * BOX_Y * BOX_Z;
  CAPTURE(RANK);
  CAPTURE(static_cast<int>(swizzle));
  const DeviceBuffer in = numbers(PLANES * ROWS * PITCH, "in");
  DeviceBuffer back(in.size(), "back"), out(BYTES, "out");
  out.poison();
  back.poison();
  TensorMapShape shape{{COLUMNS, ROWS, PLANES, 1, 1},
                       {PITCH * 2, ROWS * PITCH * 2, PLANES * ROWS * PITCH * 2, 1024},
                       {BOX_X, BOX_Y, BOX_Z, 1, 1}};
  shape.sizes.resize(RANK);
  shape.strides.resize(RANK - 1);
  shape.box.resize(RANK);
  struct alignas(1024) Tile {
    std::uint16_t elements[BYTES / 2];
  };
  launch(load_box<RANK, BYTES>,
         {"load_box", dim3(1), dim3(32), shared_bytes<Tile, std::uint64_t[1]>()},
         make_tensor_map(in.data(), TensorElement::f16, shape, swizzle),
         make_tensor_map(back.data(), TensorElement::bf16, shape, swizzle), x0, x1, x2,
         static_cast<std::uint16_t*>(out.data()), store);
  const auto got = on_host(out), stored = on_host(back);
  std::vector<std::uint16_t> wanted_back(stored.size(), 0xffff);
  const int bits = static_cast<int>(swizzle);
  for (int i = 0; i < BYTES / 2; ++i) {
    const int x = i % BOX_X + x0, y = i / BOX_X % BOX_Y + x1, z = i / BOX_X / BOX_Y + x2;
    const bool inside = x >= 0 && x < COLUMNS && y >= 0 && y < ROWS && z >= 0 && z < PLANES;
    const int number = (z * ROWS + y) * PITCH + x;
    const int byte = 2 * i ^ (2 * i >> 7 & ((1 << bits) - 1)) << 4;
    CHECK(got[byte / 2] == (inside ? number : 0));
    if (inside) wanted_back[number] = static_cast<std::uint16_t>(number);
    // A store writes 16 bytes at a time: the zeros after a row's end too.
    const bool beside = x >= COLUMNS && x < COLUMNS + 2 && y < ROWS && z < PLANES;
    if (beside) wanted_back[number] = 0;
  }
  if (store) CHECK(stored == wanted_back);
}

TEST_CASE("TMA moves boxes, and back") {
  if (device().sm < 90) return;
  check_box<2, 64, 16, 1>(Swizzle::b128, 0, 0, 0);
  check_box<2, 32, 16, 1>(Swizzle::b64, 32, 2, 0);
  check_box<2, 16, 8, 1>(Swizzle::b32, 16, 5, 0);
  check_box<3, 64, 8, 2>(Swizzle::none, 8, 2, 1);
  check_box<4, 8, 16, 2>(Swizzle::none, 8, 0, 0);
  check_box<5, 64, 8, 1>(Swizzle::b128, 0, 0, 2);
}

TEST_CASE("TMA loads zeros from beyond the end, and stores nothing there") {
  if (device().sm < 90) return;
  check_box<2, 64, 16, 1>(Swizzle::b128, 64, 8, 0);
  check_box<2, 16, 8, 1>(Swizzle::b32, 64, 15, 0);
  check_box<3, 64, 8, 2>(Swizzle::none, 16, 2, 2);
  check_box<4, 8, 16, 2>(Swizzle::none, 64, 0, 0);
}

TEST_CASE("a TMA load may begin before the tensor") {
  if (device().sm < 90) return;
  check_box<2, 16, 8, 1>(Swizzle::b32, 0, -3, 0, false);
  check_box<2, 32, 16, 1>(Swizzle::b64, -16, 0, 0, false);
  check_box<3, 64, 8, 2>(Swizzle::b128, -8, -2, -1, false);
}

// The registers of two warpgroups move to the third; nothing else happens.
__global__ void __launch_bounds__(384, 1) hand_over(int* out) {
  if (threadIdx.x < 128) {
    setmaxnreg_dec<24>();
    named_barrier_arrive(3, 384);
  } else {
    setmaxnreg_inc<240>();
    named_barrier_sync(3, 384);
    out[threadIdx.x - 128] = threadIdx.x;
  }
}

TEST_CASE("setmaxnreg and a named barrier that some only arrive at") {
  if (device().sm < 90) return;
  DeviceBuffer out(256 * 4, "out");
  out.poison();
  launch(hand_over, {"hand_over", dim3(1), dim3(384)}, static_cast<int*>(out.data()));
  std::vector<int> got(256);
  out.read(got.data(), 1024);
  for (int t = 0; t < 256; ++t) CHECK(got[t] == t + 128);
}

TEST_CASE("tensor maps that cannot be made") {
  if (device().sm < 90) return;
  const DeviceBuffer data = numbers(4096, "data");
  const auto refused = [&](const TensorMapShape& shape, Swizzle swizzle, int offset = 0) {
    CHECK_THROWS(make_tensor_map(static_cast<char*>(data.data()) + offset, TensorElement::f16,
                                 shape, swizzle));
  };
  CHECK_NOTHROW(
      make_tensor_map(data.data(), TensorElement::f16, {{64, 64}, {128}, {64, 8}}, Swizzle::b128));
  refused({{64, 64}, {128}, {64, 8}}, Swizzle::b64);      // a row longer than the span
  refused({{64, 64}, {120}, {64, 8}}, Swizzle::b128);     // a stride of 120 bytes
  refused({{64, 64}, {128}, {64, 257}}, Swizzle::b128);   // a box of 257 rows
  refused({{64, 64}, {128}, {60, 8}}, Swizzle::b128);     // a row of 120 bytes
  refused({{64, 64}, {128}, {64, 8}}, Swizzle::b128, 8);  // an address
  refused({{64, 64}, {}, {64, 8}}, Swizzle::b128);
}

// Each block adds up what all blocks of the launch in front have written.
__global__ void next_sums(const int* before, int* after) {
  launch_dependents();
  if (threadIdx.x == 0) bulk_prefetch_L2(before, 256);
  wait_for_kernels_in_front();
  int sum = blockIdx.x;
  for (int i = 0; i < 64; ++i) sum = (sum + before[i]) % 1009;
  if (threadIdx.x == 0) after[blockIdx.x] = sum;
}

TEST_CASE("launches that overlap see what the one in front has written") {
  if (device().sm < 90) return;
  std::vector<int> want(64);
  std::iota(want.begin(), want.end(), 1);
  DeviceBuffer a(256, "a"), b(256, "b");
  a.write(want.data(), 256);
  for (int launches = 0; launches < 100; ++launches) {
    launch(next_sums, {.name = "next_sums", .grid = 64, .block = 32, .overlaps = true},
           static_cast<const int*>(a.data()), static_cast<int*>(b.data()));
    std::swap(a, b);
    const int all = std::accumulate(want.begin(), want.end(), 0);
    for (int i = 0; i < 64; ++i) want[i] = (i + all) % 1009;
  }
  std::vector<int> got(64);
  a.read(got.data(), 256);
  CHECK(got == want);
}

}  // namespace
}  // namespace al
