// Runs a launch: spreads its blocks over the cores.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <mutex>
#include <numeric>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "common/emulator/launch.hpp"
#include "common/emulator/worker.hpp"
#include "common/error.hpp"

namespace al::emulator {
namespace {

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

std::mutex mutex;                                   // guards what follows
std::vector<std::unique_ptr<Worker>> idle_workers;  // their fibers are used again
std::uint32_t next_serial = kHost + 1;
Counts total;
std::vector<std::string> traces;

std::uint64_t mix(std::uint64_t x) {
  x = (x ^ x >> 31) * 0x9e3779b97f4a7c15u;
  return x ^ x >> 29;
}

// The blocks 0 … count - 1 in an order of the seed's, each once: a step that has no divisor in
// common with the count.
struct ShuffledOrder {
  ShuffledOrder(std::uint64_t blocks, std::uint64_t seed)
      : count(blocks), start(mix(seed) % count), step(mix(seed + 1) % count) {
    while (std::gcd(step, count) != 1) ++step;
  }
  std::uint64_t operator()(std::uint64_t i) const { return (start + i * step) % count; }
  std::uint64_t count, start, step;
};

// `scale`: blocks for each checked one. Memory was only counted in those.
void add(Counts& to, const Counts& from, double scale) {
  for (const auto field :
       {&Counts::global_load_bytes, &Counts::global_store_bytes, &Counts::global_requests,
        &Counts::global_sectors, &Counts::shared_requests, &Counts::shared_wavefronts}) {
    to.*field += std::llround(static_cast<double>(from.*field) * scale);
  }
  for (const auto field :
       {&Counts::barriers, &Counts::shuffles, &Counts::blocks, &Counts::checked_blocks}) {
    to.*field += from.*field;
  }
}

void validate(const Grid& g) {
  const auto refuse = [&](const std::string& why) {
    return usage_error(std::string("Kernel ") + g.name + " cannot be launched: " + why);
  };
  const std::uint64_t threads = std::uint64_t{g.block.x} * g.block.y * g.block.z;
  if (threads == 0 || threads > 1024) {
    throw refuse("its block has " + std::to_string(threads) + " threads, 1 to 1024 are allowed.");
  }
  const std::uint64_t blocks = std::uint64_t{g.grid.x} * g.grid.y * g.grid.z;
  if (blocks == 0 || blocks > 0x7fffffff || g.grid.y > 65535 || g.grid.z > 65535) {
    throw refuse("its grid is " + std::to_string(g.grid.x) + " x " + std::to_string(g.grid.y) +
                 " x " + std::to_string(g.grid.z) +
                 " blocks; y and z can be 1 to 65535, and all of them at most 2147483647.");
  }
  if (g.shared_bytes > SharedMemory::kLimit) {
    throw refuse("it asks for " + std::to_string(g.shared_bytes) +
                 " bytes of shared memory, a block can have " +
                 std::to_string(SharedMemory::kLimit) + ".");
  }
}

bool may_be_traced(const Grid& g) {
  const TraceWish& wish = trace_wish();
  const auto size = [](dim3 x) { return std::int64_t{x.x} * x.y * x.z; };
  return kHooks && traces.size() < kTracedLaunches && wish.block >= 0 &&
         wish.block < size(g.grid) && wish.thread < size(g.block);
}

}  // namespace

TraceWish& trace_wish() {
  static TraceWish instance;
  return instance;
}

Settings& settings() {
  static Settings instance = [] {
    Settings s;
    s.seed = from_environment("AL_EMULATOR_SEED", s.seed);
    s.threads = static_cast<int>(from_environment("AL_EMULATOR_THREADS", s.threads));
    s.checked_blocks =
        static_cast<int>(from_environment("AL_EMULATOR_CHECKED_BLOCKS", s.checked_blocks));
    s.gpu_fragments = from_environment("AL_EMULATOR_GPU_FRAGMENTS", s.gpu_fragments) != 0;
    return s;
  }();
  return instance;
}

void run_grid(const Grid& grid) {
  validate(grid);
  const Settings s = settings();
  const std::uint64_t blocks = std::uint64_t{grid.grid.x} * grid.grid.y * grid.grid.z;
  const ShuffledOrder order(blocks, s.seed);
  const auto wanted = static_cast<std::uint64_t>(s.checked_blocks);
  const auto watch = [&](std::uint64_t b) {
    return wanted == 0 || blocks <= wanted || b == 0 || b == blocks - 1 ||
           mix(s.seed + b) % blocks < wanted || static_cast<std::int64_t>(b) == trace_wish().block;
  };

  Launch launch{grid, 0, global_buffers(), {}, nullptr};
  std::optional<Trace> trace;
  {
    const std::lock_guard lock(mutex);
    if (may_be_traced(grid)) {
      trace.emplace(grid, static_cast<std::uint64_t>(trace_wish().block), trace_wish().thread);
      launch.trace = &*trace;
    }
    launch.serial = next_serial;
    next_serial += static_cast<std::uint32_t>(blocks) + 1;
  }

  std::atomic<std::uint64_t> next{0};
  std::atomic<bool> stop{false};
  std::atomic<std::int64_t> checked{0};
  std::string report;
  Counts sum;
  const auto work = [&] {
    std::unique_ptr<Worker> worker;
    {
      const std::lock_guard lock(mutex);
      if (!idle_workers.empty()) {
        worker = std::move(idle_workers.back());
        idle_workers.pop_back();
      }
    }
    if (!worker) worker = std::make_unique<Worker>();
    for (std::uint64_t i; !stop && (i = next++) < blocks;) {
      const std::uint64_t b = order(i);
      const bool watched = kHooks && watch(b);
      checked += watched;
      if (worker->run_block(launch, b, mix(s.seed) ^ mix(b), watched)) continue;
      const std::lock_guard lock(mutex);
      if (!stop.exchange(true)) report = worker->report;
    }
    const std::lock_guard lock(mutex);
    add(sum, std::exchange(worker->counts, Counts{}), 1.0);
    idle_workers.push_back(std::move(worker));
  };
  const std::uint64_t cores = s.threads > 0 ? s.threads : std::thread::hardware_concurrency();
  {
    std::vector<std::jthread> others;
    for (std::uint64_t i = 1; i < std::min(cores, blocks); ++i) others.emplace_back(work);
    work();
  }
  if (stop) throw Error(ExitCode::wrong_result, report);

  sum.blocks = static_cast<std::int64_t>(blocks);
  sum.checked_blocks = checked;
  const std::lock_guard lock(mutex);
  if (trace) traces.push_back(trace->json());
  add(total, sum, checked > 0 ? static_cast<double>(blocks) / static_cast<double>(checked) : 1.0);
}

std::vector<std::string> take_traces() {
  const std::lock_guard lock(mutex);
  return std::exchange(traces, {});
}

Counts take_counts() {
  const std::lock_guard lock(mutex);
  return std::exchange(total, Counts{});
}

}  // namespace al::emulator
