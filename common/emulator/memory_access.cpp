// Judges every load and store that a kernel makes.
#include "common/emulator/indices.hpp"
#include "common/emulator/report.hpp"
#include "common/emulator/static_memory.hpp"
#include "common/emulator/worker.hpp"

namespace al::emulator {
namespace {

const char* verb(Direction direction, bool atomic) {
  if (atomic) return "does an atomic on";
  return direction == Direction::load ? "reads" : "writes";
}

// "K_smem, element 37 (bytes 148 to 151)": elements of the size of the access.
std::string place(const std::string& array, std::size_t offset, unsigned bytes) {
  return array + ", element " + std::to_string(offset / bytes) + " (bytes " +
         std::to_string(offset) + " to " + std::to_string(offset + bytes - 1) + ")";
}

// The instruction that a stamp remembers by the lower half of its address.
std::size_t whole_pc(std::size_t pc, std::uint32_t low) {
  return low == 0 ? 0 : (pc & ~std::size_t{0xffffffff}) | low;
}

}  // namespace

void* take_shared(const char* name, std::size_t index, std::size_t bytes, std::size_t alignment) {
  const Entered entered;
  Worker& w = entered.worker;
  SharedMemory& shared = w.shared;
  const auto line = [&] {
    return "  thread:  " + w.name(w.current) + " takes " + name + ", " + std::to_string(bytes) +
           " bytes, as array " + std::to_string(index) + "\n";
  };
  if (index < shared.arrays().size()) {
    const SharedArray& array = shared.arrays()[index];
    if (array.bytes != bytes || std::strcmp(array.name, name) != 0) {
      w.fail("threads disagree about shared memory",
             line() + "  other:   another thread took " + array.name + ", " +
                 std::to_string(array.bytes) + " bytes\n",
             "the takes at the top of the kernel: every thread must make the same ones");
      return nullptr;
    }
    return shared.address(array);
  }
  std::byte* address = shared.take(name, bytes, alignment);
  if (!address || shared.bytes_taken() > w.launch->grid.shared_bytes) {
    w.fail("more shared memory taken than launched with",
           line() + "  sum:     " + std::to_string(shared.bytes_taken()) +
               " bytes, the launch asks for " + std::to_string(w.launch->grid.shared_bytes) + "\n",
           "shared_bytes<...>() at the launch: it must list every array that the kernel takes");
    return nullptr;
  }
  return address;
}

std::size_t shared_offset(const void* pointer) {
  const Entered entered;
  Worker& w = entered.worker;
  const auto address = reinterpret_cast<std::size_t>(pointer);
  if (!w.shared.contains(address)) {
    w.fail("shared address of something else than shared memory",
           "  thread:  " + w.name(w.current) + "\n",
           "the pointer that a descriptor is made of: SharedArena::take gives arrays");
  }
  return w.shared.offset_of(address);
}

namespace {

const char* how_of(Direction direction, bool atomic, const char* how) {
  if (how) return how;
  return atomic ? "atomic" : direction == Direction::load ? "load" : "store";
}

}  // namespace

void Worker::access(std::size_t address, unsigned bytes, std::size_t pc, Direction direction,
                    bool atomic, const char* how) {
  if constexpr (!kHooks) return;
  if (shared.contains(address)) {
    if (watched) access_shared(address, bytes, pc, direction, atomic, how);
  } else if (threads_[current]->fiber.owns(address)) {
    if (!async.warpgroups.empty()) touches_accumulators(address, bytes, pc);  // a local variable
  } else if (GlobalBuffer* buffer = buffer_at(address, pc)) {
    if (watched) log.add(Space::global, direction, pc, current % 32, address, bytes);
    if (trace) {
      trace->access(Space::global, direction, how_of(direction, atomic, how), buffer->name, pc,
                    current, address - buffer->begin, bytes);
    }
    access_global(*buffer, address, bytes, pc, direction, atomic);
  } else if (!is_own(address)) {
    fail_illegal(address, bytes, pc, direction);
  }
}

void Worker::trace_shared(std::size_t offset, unsigned bytes, std::size_t pc, Direction direction,
                          const char* how) {
  const SharedArray* array = trace ? shared.nearest(offset) : nullptr;
  if (!array) return;
  trace->access(Space::shared, direction, how, array->name, pc, current, offset - array->offset,
                bytes);
}

void Worker::access_shared(std::size_t address, unsigned bytes, std::size_t pc, Direction direction,
                           bool atomic, const char* how) {
  const std::size_t offset = shared.offset_of(address);
  trace_shared(offset, bytes, pc, direction, how_of(direction, atomic, how));
  const auto low_pc = static_cast<std::uint32_t>(pc);
  log.add(Space::shared, direction, pc, current % 32, address, bytes);
  const SharedMemory::Finding finding = direction == Direction::load
                                            ? shared.read(offset, bytes, current, low_pc)
                                            : shared.write(offset, bytes, current, low_pc, atomic);
  if (finding.verdict != SharedMemory::Verdict::fine) {
    fail_shared(finding, offset, bytes, pc, verb(direction, atomic));
  }
}

bool Worker::start_copy(const Copy& copy) {
  const auto to = reinterpret_cast<std::size_t>(copy.to);
  const auto from = reinterpret_cast<std::size_t>(copy.from);
  if (copy.source_bytes > 0) {
    access(from, copy.source_bytes, copy.pc, Direction::load, false, "cp.async");
  }
  if (!watched || failed_) return !failed_;
  log.add(Space::shared, Direction::store, copy.pc, current % 32, to, copy.bytes);
  const std::size_t offset = shared.offset_of(to);
  trace_shared(offset, copy.bytes, copy.pc, Direction::store, "cp.async");
  const SharedMemory::Finding finding =
      shared.start_write(offset, copy.bytes, current, current, static_cast<std::uint32_t>(copy.pc));
  return finding.verdict == SharedMemory::Verdict::fine ||
         fail_shared(finding, offset, copy.bytes, copy.pc, "starts a cp.async to");
}

void Worker::land_copy(const Copy& copy) {
  if (copy.source_bytes > 0) std::memcpy(copy.to, copy.from, copy.source_bytes);
  std::memset(static_cast<std::byte*>(copy.to) + copy.source_bytes, 0,
              copy.bytes - copy.source_bytes);
  if (!watched) return;
  shared.land_write(shared.offset_of(reinterpret_cast<std::size_t>(copy.to)), copy.bytes, current,
                    shared.clocks.of(current), static_cast<std::uint32_t>(copy.pc));
}

namespace {
const std::string kNeeds =
    "the way from the earlier line to this one, perhaps round a loop: it needs a ";
}

bool Worker::fail_shared(const SharedMemory::Finding& finding, std::size_t offset, unsigned bytes,
                         std::size_t pc, const char* verb) {
  using Verdict = SharedMemory::Verdict;
  const SharedArray* array = shared.nearest(finding.offset);
  const std::string who = "  thread:  " + name(current, true) + " " + verb + " ";
  if (!array) {
    return fail("use of shared memory that was never taken",
                who + "shared memory at " + line_of(pc) + "\n",
                "where the pointer comes from: SharedArena::take gives arrays");
  }
  if (finding.verdict == Verdict::red_zone) {
    const std::string where =
        offset < array->offset
            ? std::to_string(array->offset - offset) + " bytes before the start of "
            : "up to " + std::to_string(offset + bytes - array->offset - array->bytes) +
                  " bytes past the end of ";
    return fail("overrun of a shared array",
                who + std::to_string(bytes) + " bytes, " + where + array->name + " (" +
                    std::to_string(array->bytes) + " bytes), at " + line_of(pc) + "\n",
                "the index at that line, and the size the array was taken with");
  }
  const std::string here =
      who + place(array->name, offset - array->offset, bytes) + " at " + line_of(pc) + "\n";
  if (finding.verdict == Verdict::unwritten) {
    return fail("read of unwritten shared memory", here,
                "the loop that should have filled it: which thread writes this element?");
  }
  const std::string other = agent_name(finding.earlier_agent);
  const std::string line = line_of(whole_pc(pc, finding.earlier_pc)) + "\n";
  const bool by_hardware = finding.earlier_agent >= kMaxThreads;
  if (finding.verdict == Verdict::in_flight && by_hardware) {
    return fail(
        "use of shared memory while a copy is on its way there",
        here + "  earlier: " + other + ", started at " + line,
        "the wait: mbarrier_wait() with the parity of this round, before anyone touches what "
        "the copy brings");
  }
  if (finding.verdict == Verdict::in_flight) {
    const Thread& copier = thread(finding.earlier_agent);
    const std::string waited = copier.last_wait_pc == 0
                                   ? "  waited:  not once\n"
                                   : "  waited:  last by cp_async_wait<" +
                                         std::to_string(copier.last_wait_newer) + ">() at " +
                                         line_of(copier.last_wait_pc) + "\n";
    return fail(
        "use of shared memory while cp.async is on its way there",
        here + "  earlier: " + other + " started the copy at " + line + waited,
        "the wait: cp_async_wait<N>() by the thread that copied, N counting the newer groups that "
        "may stay on their way, then a barrier before others look");
  }
  if (finding.verdict == Verdict::unfenced) {
    return fail("hardware reads what a thread has written, without a fence",
                here + "  earlier: " + other + " wrote it at " + line,
                "fence_proxy_async() by the thread that wrote, after its stores and before the "
                "barrier that tells others");
  }
  const bool same_warp = finding.earlier_agent >= 0 && finding.earlier_agent / 32 == current / 32;
  return fail("race in shared memory",
              here + "  earlier: " + other +
                  (finding.earlier_wrote ? " wrote it at " : " read it at ") + line,
              by_hardware || shared.clocks.exact()
                  ? "the way from the earlier line to this one, perhaps round a ring of stages: a "
                    "wait that sees the earlier access done, an arrival after it, and a wait for "
                    "that arrival"
              : same_warp ? kNeeds +
                                "__syncwarp() or a __syncthreads() (a shuffle or a vote orders "
                                "no memory)"
                          : kNeeds + "__syncthreads()");
}

void Worker::access_global(GlobalBuffer& buffer, std::size_t address, unsigned bytes,
                           std::size_t pc, Direction direction, bool atomic) {
  const std::size_t offset = address - buffer.begin;
  const auto low_pc = static_cast<std::uint32_t>(pc);
  if (offset + bytes > buffer.bytes) {
    fail_illegal(address, bytes, pc, direction);
    return;
  }
  if (!current_thread().has_waited) {
    fail("use of global memory before the kernels in front have ended",
         "  thread:  " + name(current) + " " + verb(direction, atomic) + " " +
             place(buffer.name, offset, bytes) + " at " + line_of(pc) + "\n",
         "wait_for_kernels_in_front(): a kernel launched with LaunchConfig::overlaps begins while "
         "they still run, so every thread calls it before its first access");
    return;
  }
  if (atomic) launch->announcements.meet(address, identity.serial, identity.fenced, identity.seen);
  const GlobalBuffer::Finding finding = direction == Direction::load && !atomic
                                            ? buffer.read(offset, bytes, identity, low_pc)
                                            : buffer.write(offset, bytes, identity, low_pc, atomic);
  if (finding.verdict == GlobalBuffer::Verdict::fine) return;

  const std::string here = "  thread:  " + name(current) + " " + verb(direction, atomic) + " " +
                           place(buffer.name, offset, bytes) + " at " + line_of(pc) + "\n";
  if (finding.verdict == GlobalBuffer::Verdict::unwritten) {
    fail("read of unwritten global memory", here,
         "the kernel or the copy that should have written " + buffer.name +
             " before this launch: which thread writes this element?");
    return;
  }
  const std::string block =
      finding.earlier_serial == launch->serial
          ? "several blocks"
          : "block " + to_string(unflatten(finding.earlier_serial - launch->serial - 1,
                                           launch->grid.grid));
  fail("race between blocks",
       here + "  earlier: " + block + (finding.earlier_wrote ? " wrote it at " : " read it at ") +
           line_of(whole_pc(pc, finding.earlier_pc)) + "\n",
       "which block this element belongs to; blocks run in any order, so sharing it takes atomics, "
       "or __threadfence() and an atomic between the two, or two launches");
}

void Worker::access_global_run(std::size_t address, std::size_t bytes, std::size_t pc,
                               Direction direction) {
  if (!kHooks || failed_ || bytes == 0) return;
  if (watched) {
    ++counts.global_requests;
    counts.global_sectors +=
        static_cast<std::int64_t>((address + bytes - 1) / 32 - address / 32 + 1);
    (direction == Direction::load ? counts.global_load_bytes : counts.global_store_bytes) +=
        static_cast<std::int64_t>(bytes);
  } else if (direction == Direction::load) {
    return;
  }
  if (GlobalBuffer* buffer = buffer_at(address, pc)) {
    if (trace) trace->run(direction, buffer->name, pc, current, address - buffer->begin, bytes);
    access_global(*buffer, address, static_cast<unsigned>(bytes), pc, direction, false);
  } else {
    fail_illegal(address, static_cast<unsigned>(bytes), pc, direction);
  }
}

void Worker::prefetch(std::size_t address, std::size_t bytes, std::size_t pc) {
  if (!kHooks) return;
  const GlobalBuffer* buffer = buffer_at(address, pc);
  if (buffer && address + bytes <= buffer->begin + buffer->bytes) return;
  fail_illegal(address, static_cast<unsigned>(bytes), pc, Direction::load);
}

void Worker::hear(std::size_t address, std::size_t pc) {
  if (!kHooks || !buffer_at(address, pc)) return;
  launch->announcements.meet(address, identity.serial, identity.fenced, identity.seen);
}

GlobalBuffer* Worker::buffer_at(std::size_t address, std::size_t pc) {
  GlobalBuffer*& recent = recent_[pc / 4 % recent_.size()];
  if (recent && recent->contains(address)) return recent;
  for (const auto& buffer : launch->buffers) {
    if (buffer->contains(address)) return recent = buffer.get();
  }
  return nullptr;
}

// The kernel's arguments, and the program's constants.
bool Worker::is_own(std::size_t address) const {
  return address - reinterpret_cast<std::size_t>(launch->grid.body) < launch->grid.body_bytes ||
         is_index(address) || is_static(address);
}

bool Worker::fail_illegal(std::size_t address, unsigned bytes, std::size_t pc,
                          Direction direction) {
  std::string nearest = "no buffer is near";
  std::size_t best = 1 << 20;
  for (const auto& buffer : launch->buffers) {
    const std::size_t end = buffer->begin + buffer->bytes;
    const bool before = address < buffer->begin;
    const std::size_t distance = before ? buffer->begin - address : address + bytes - end;
    if (distance >= best) continue;
    best = distance;
    nearest = "it ends " + std::to_string(distance) + " bytes after the end of " + buffer->name;
    if (before) nearest = "it is " + std::to_string(distance) + " bytes before " + buffer->name;
    nearest += " (" + std::to_string(buffer->bytes) + " bytes)";
  }
  return fail("access outside global memory",
              "  thread:  " + name(current) + " " + verb(direction, false) + " " +
                  std::to_string(bytes) + " bytes at " + line_of(pc) + "\n  address: " + nearest +
                  "\n",
              "the index at that line, and the check that should keep it in range");
}

}  // namespace al::emulator
