// Bulk copies, of runs of bytes and of boxes of tensors. What a thread asks for is checked at once
// and happens later, at a moment drawn from the seed; until then nobody may touch its bytes. A
// load's bytes are then counted by its mbarrier; a store is waited for by the thread that asked.
#include "common/emulator/hopper.hpp"
#include "common/emulator/report.hpp"
#include "common/emulator/tensor_box.hpp"
#include "common/emulator/worker.hpp"

namespace al::emulator {
namespace {

// A run of bytes: a box that has an address and no extent.
TensorBox run_at(const void* address) {
  TensorBox box{};
  box.address = reinterpret_cast<std::uint64_t>(address);
  return box;
}

struct Request {
  TensorBox box{};
  std::size_t bytes = 0;   // of the box
  std::size_t offset = 0;  // in shared memory
  std::array<int, 5> x{};
  std::size_t pc = 0;
  Where where;

  std::string text(Worker& w, const char* kind) const {
    const SharedArray* array = w.shared.nearest(offset);
    return std::string(kind) + (array ? array->name : "shared memory") + ", started at " +
           to_string(where);
  }

  // f(offset in shared memory, address, size, inside) for each 16 bytes, which a swizzle leaves
  // together: so many of them lie in the tensor, the first ones or none.
  template <typename F>
  void each_part(F f) const {
    if (box.box[0] == 0) return f(offset, box.address, bytes, bytes);  // a run
    box.each_row(
        x.data(), [&](std::size_t row, std::uint64_t address, std::size_t skip, std::size_t count) {
          for (std::size_t i = 0; i < box.row_bytes(); i += 16) {
            const std::size_t to = swizzled(offset + row * box.row_bytes() + i, box.swizzle);
            const bool in = i >= skip && i < skip + count;
            f(to, in ? address + i - skip : 0, std::size_t{16},
              in ? std::min(std::size_t{16}, skip + count - i) : 0);
          }
        });
  }
  // f(address, count) for each run of global memory. A store writes 16 bytes at a time, also past
  // the end of a row that ends within them (so an H200 does).
  template <typename F>
  void each_run(bool stores, F f) const {
    if (box.box[0] == 0) return f(box.address, bytes);
    box.each_row(x.data(), [&](std::size_t, std::uint64_t address, std::size_t, std::size_t count) {
      if (count > 0) f(address, stores ? (count + 15) / 16 * 16 : count);
    });
  }
};

struct LoadWork final : Deferred {
  Request request;
  std::size_t barrier;  // offset in shared memory
  std::string name;
  LoadWork(const Request& r, std::size_t barrier_offset, std::string called)
      : request(r), barrier(barrier_offset), name(std::move(called)) {}

  void perform(Worker& w) override {
    request.each_part(
        [&](std::size_t to, std::uint64_t from, std::size_t size, std::size_t inside) {
          if (inside > 0) std::memcpy(w.shared.at(to), reinterpret_cast<const void*>(from), inside);
          std::memset(w.shared.at(to) + inside, 0, size - inside);
        });
    Mbarrier& m = w.async.mbarriers.at(barrier);
    if (w.watched) {
      const Time now = w.shared.clocks.tick();
      w.shared.land_write(request.offset, static_cast<unsigned>(request.bytes), m.agent, now,
                          static_cast<std::uint32_t>(request.pc));
      w.shared.clocks.publish(m.agent, now, m.arrived);
    }
    m.bytes -= static_cast<std::int64_t>(request.bytes);
    w.maybe_complete(m);
  }
  std::string text() override { return name; }
};

struct StoreWork final : Deferred {
  Request request;
  std::size_t number;  // in AsyncState::stores
  std::string name;
  StoreWork(const Request& r, std::size_t n, std::string called)
      : request(r), number(n), name(std::move(called)) {}

  void perform(Worker& w) override {
    request.each_part(
        [&](std::size_t from, std::uint64_t to, std::size_t size, std::size_t inside) {
          if (inside > 0) std::memcpy(reinterpret_cast<void*>(to), w.shared.at(from), size);
        });
    w.async.stores[number].done = true;
  }
  std::string text() override { return name; }
};

// Checks what every copy must keep to; false: reported.
bool prepare(Worker& w, Request& r, const void* shared_side, unsigned alignment) {
  const std::string who =
      "  thread:  " + w.name(w.current, true) + " at " + to_string(r.where) + "\n";
  const auto address = reinterpret_cast<std::size_t>(shared_side);
  if (!w.shared.contains(address)) {
    return w.fail("bulk copy with something else than shared memory", who,
                  "the order of the arguments, and the pointer: SharedArena::take gives arrays");
  }
  if (address % alignment != 0 || r.bytes % 16 != 0 || r.bytes == 0 || r.box.address % 16 != 0) {
    return w.fail("misaligned bulk copy", who,
                  "both addresses and the bytes: they must be multiples of 16, the shared address "
                  "of a tensor's box of 128");
  }
  r.offset = w.shared.offset_of(address);
  return true;
}

bool prepare_box(Worker& w, Request& r, const TensorMap& map, const int* x, int rank,
                 const void* shared_side, bool stores) {
  const std::string who =
      "  thread:  " + w.name(w.current, true) + " at " + to_string(r.where) + "\n";
  const std::optional<TensorBox> box = read_tensor_map(map);
  if (!box) {
    return w.fail("tensor map that nobody has made", who,
                  "make_tensor_map() on the host, and the kernel's parameter: const "
                  "__grid_constant__ TensorMap");
  }
  if (box->rank != rank) {
    return w.fail("tensor map of another rank", who,
                  "the number of coordinates, " + std::to_string(rank) +
                      ", and of the map's "
                      "dimensions, " +
                      std::to_string(box->rank));
  }
  if (x[0] * box->element % 16 != 0) {
    return w.fail(
        "tensor box that starts between 16-byte parts", who,
        "the first coordinate, " + std::to_string(x[0]) + ": in bytes it must be a multiple of 16");
  }
  if (stores && std::any_of(x, x + rank, [](int i) { return i < 0; })) {
    return w.fail("tensor store to a negative coordinate", who,
                  "the coordinates: a load may begin before the tensor, a store may not");
  }
  r.box = *box;
  r.bytes = box->bytes();
  std::copy(x, x + rank, r.x.begin());
  return prepare(w, r, shared_side, 128);
}

bool check_shared(Worker& w, const SharedMemory::Finding& found, const Request& r,
                  const char* verb) {
  if (found.verdict == SharedMemory::Verdict::fine) return true;
  return w.fail_shared(found, found.offset / 16 * 16, 16, r.pc, verb);
}

void start_load(Worker& w, const Request& r, std::uint64_t* barrier) {
  Mbarrier* m = w.mbarrier_at(barrier, "a bulk copy", r.pc, r.where);
  if (!m) return;
  if (!m->fenced) {
    w.fail("mbarrier that the copy engine has not heard of",
           "  thread:  " + w.name(w.current, true) + " at " + to_string(r.where) + "\n",
           "fence_mbarrier_init() by the thread that called mbarrier_init(), before the "
           "__syncthreads()");
    return;
  }
  r.each_run(false, [&](std::uint64_t address, std::size_t count) {
    w.access_global_run(address, count, r.pc, Direction::load);
  });
  if (w.failed()) return;
  if (w.watched &&
      !check_shared(w,
                    w.shared.start_write(r.offset, static_cast<unsigned>(r.bytes), w.current,
                                         m->agent, static_cast<std::uint32_t>(r.pc)),
                    r, "starts a copy to")) {
    return;
  }
  if (w.trace) {
    const SharedArray* array = w.shared.nearest(r.offset);
    w.trace->note("asks for a copy of " + std::to_string(r.bytes) + " bytes to " +
                      (array ? array->name : "shared memory"),
                  r.where, w.current);
  }
  w.defer(std::make_unique<LoadWork>(r, w.shared.offset_of(reinterpret_cast<std::size_t>(barrier)),
                                     r.text(w, "a copy to ")));
}

void start_store(Worker& w, const Request& r) {
  r.each_run(true, [&](std::uint64_t address, std::size_t count) {
    w.access_global_run(address, count, r.pc, Direction::store);
  });
  if (w.failed()) return;
  StoreGroups& groups = w.async.store_groups[w.current];
  if (groups.agent < 0) groups.agent = w.new_agent("a bulk store of " + w.name(w.current, true));
  Store store;
  if (w.watched) {
    w.shared.clocks.be_exact();
    store.time = w.shared.clocks.tick();
    const int threads[] = {w.current};
    if (!check_shared(
            w,
            w.shared.hardware_read(r.offset, static_cast<unsigned>(r.bytes), threads, groups.agent,
                                   store.time, static_cast<std::uint32_t>(r.pc)),
            r, "starts a store from")) {
      return;
    }
  }
  groups.open.push_back(w.async.stores.size());
  w.defer(std::make_unique<StoreWork>(r, w.async.stores.size(), r.text(w, "a store from ")));
  w.async.stores.push_back(store);
}

struct StoresDone final : Awaited {
  Worker& worker;
  const std::vector<std::size_t>& group;
  StoresDone(Worker& w, const std::vector<std::size_t>& g) : worker(w), group(g) {}
  bool over() override {
    return std::all_of(group.begin(), group.end(),
                       [&](std::size_t i) { return worker.async.stores[i].done; });
  }
  std::string text() override { return "for its bulk stores"; }
  std::string look_at() override { return "the emulator: bulk stores always end"; }
};

std::size_t number(void* pc) { return reinterpret_cast<std::size_t>(pc); }

}  // namespace

void bulk_load(void* to_shared, const void* from_global, std::uint32_t bytes,
               std::uint64_t* barrier, Where where) {
  const Entered entered;
  Request r{run_at(from_global), bytes, 0, {}, number(__builtin_return_address(0)), where};
  if (prepare(entered.worker, r, to_shared, 16)) start_load(entered.worker, r, barrier);
}

void bulk_store(void* to_global, const void* from_shared, std::uint32_t bytes, Where where) {
  const Entered entered;
  Request r{run_at(to_global), bytes, 0, {}, number(__builtin_return_address(0)), where};
  if (prepare(entered.worker, r, from_shared, 16)) start_store(entered.worker, r);
}

void bulk_prefetch(const void* from_global, std::uint32_t bytes, Where where) {
  const Entered entered;
  Worker& w = entered.worker;
  const auto address = reinterpret_cast<std::size_t>(from_global);
  if (address % 16 != 0 || bytes % 16 != 0 || bytes == 0) {
    w.fail("misaligned bulk prefetch",
           "  thread:  " + w.name(w.current, true) + " at " + to_string(where) + "\n",
           "the address and the bytes: both must be multiples of 16");
    return;
  }
  w.prefetch(address, bytes, number(__builtin_return_address(0)));
}

void tma_load(void* to_shared, const TensorMap& map, std::uint64_t* barrier, const int* x, int rank,
              Where where) {
  const Entered entered;
  Request r{{}, 0, 0, {}, number(__builtin_return_address(0)), where};
  if (prepare_box(entered.worker, r, map, x, rank, to_shared, false))
    start_load(entered.worker, r, barrier);
}

void tma_store(const TensorMap& map, const void* from_shared, const int* x, int rank, Where where) {
  const Entered entered;
  Request r{{}, 0, 0, {}, number(__builtin_return_address(0)), where};
  if (prepare_box(entered.worker, r, map, x, rank, from_shared, true))
    start_store(entered.worker, r);
}

void bulk_store_commit() {
  const Entered entered;
  StoreGroups& groups = entered.worker.async.store_groups[entered.worker.current];
  groups.committed.push_back(std::move(groups.open));
  groups.open.clear();
}

void bulk_store_wait(std::size_t newer_groups, Where where) {
  const Entered entered;
  Worker& w = entered.worker;
  StoreGroups& groups = w.async.store_groups[w.current];
  while (groups.committed.size() > newer_groups) {
    const std::vector<std::size_t>& oldest = groups.committed.front();
    StoresDone done(w, oldest);
    w.wait_for(done, where);
    for (const std::size_t i : oldest) {
      if (w.watched) w.shared.clocks.learn(w.current, groups.agent, w.async.stores[i].time);
    }
    groups.committed.erase(groups.committed.begin());
  }
}

void Worker::check_nothing_owed() {
  const std::string who = "  thread:  " + name(current, true) + "\n";
  const auto found = async.store_groups.find(current);
  const auto empty = [](const std::vector<std::size_t>& group) { return group.empty(); };
  if (found != async.store_groups.end() &&
      !(found->second.open.empty() &&
        std::all_of(found->second.committed.begin(), found->second.committed.end(), empty))) {
    fail("thread ends without waiting for its bulk stores", who,
         "bulk_store_commit() and bulk_store_wait_read<0>(): shared memory must live until the "
         "stores have read it");
  }
  if (async.warpgroups.empty()) return;
  for (const Accumulators& d : async.warpgroups[current / kGroupThreads].accumulators) {
    if (!d.d[current % kGroupThreads]) continue;
    fail("thread ends without waiting for its wgmma", who, "wgmma_commit() and wgmma_wait<0>()");
  }
}

}  // namespace al::emulator
