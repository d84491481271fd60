// cp.async: a copy that a thread starts and that really has not happened until it waits for it.
// Until then the destination keeps its old bytes, and whoever touches it is reported.
#include "common/emulator/report.hpp"
#include "common/emulator/worker.hpp"

namespace al::emulator {

void cp_async(void* to, const void* from, unsigned bytes, unsigned source_bytes) {
  const Entered entered;
  Worker& w = entered.worker;
  const Copy copy{to, from, bytes, source_bytes,
                  reinterpret_cast<std::size_t>(__builtin_return_address(0))};
  const auto misaligned = [&](const void* p) {
    return reinterpret_cast<std::size_t>(p) % bytes != 0;
  };
  if (misaligned(to) || misaligned(from)) {
    w.fail("misaligned cp.async",
           "  thread:  " + w.name(w.current) + " copies " + std::to_string(bytes) + " bytes " +
               (misaligned(to) ? "to" : "from") + " an address that is no multiple of that, at " +
               line_of(copy.pc) + "\n",
           "the row length of the array on that side, in bytes");
    return;
  }
  if (!w.shared.contains(reinterpret_cast<std::size_t>(to))) {
    w.fail("cp.async to something else than shared memory",
           "  thread:  " + w.name(w.current) + " at " + line_of(copy.pc) + "\n",
           "the order of the arguments: the destination comes first");
    return;
  }
  if (w.start_copy(copy)) w.current_thread().copies.push_back(copy);
}

void cp_async_commit() {
  const Entered entered;
  Thread& t = entered.worker.current_thread();
  std::size_t in_groups = 0;
  for (const std::size_t size : t.group_sizes) in_groups += size;
  t.group_sizes.push_back(t.copies.size() - in_groups);
}

void cp_async_wait(unsigned newer_groups) {
  const Entered entered;
  Thread& t = entered.worker.current_thread();
  t.last_wait_newer = newer_groups;
  t.last_wait_pc = reinterpret_cast<std::size_t>(__builtin_return_address(0));
  while (t.group_sizes.size() > newer_groups) {
    const auto end = t.copies.begin() + static_cast<std::ptrdiff_t>(t.group_sizes.front());
    for (auto copy = t.copies.begin(); copy != end; ++copy) entered.worker.land_copy(*copy);
    t.copies.erase(t.copies.begin(), end);
    t.group_sizes.erase(t.group_sizes.begin());
  }
}

}  // namespace al::emulator
