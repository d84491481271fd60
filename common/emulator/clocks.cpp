#include "common/emulator/clocks.hpp"

namespace al::emulator {
namespace {

void join(Time* to, const Time* from, int count) {
  for (int i = 0; i < count; ++i) to[i] = std::max(to[i], from[i]);
}

}  // namespace

void Clocks::begin_block(int threads) {
  if (synced_any_ || exact_) {
    released_.fill(0);
    synced_.fill(0);
    proxy_.fill(0);
    known_.assign(known_.size(), 0);
  }
  synced_any_ = exact_ = false;
  threads_ = threads;
  width_ = 32;
  known_.resize(kMaxThreads * 32);
  now = barrier = 1;
}

void Clocks::be_exact() {
  if (exact_) return;
  const std::vector<Time> lanes = std::move(known_);
  exact_ = true;
  width_ = threads_ + kHardwareAgents;
  known_.assign(static_cast<std::size_t>(threads_) * width_, 0);
  barrier_knows_.assign(kHardwareAgents, 0);
  for (int t = 0; t < threads_; ++t) {
    for (int lane = 0; lane < 32 && t / 32 * 32 + lane < threads_; ++lane) {
      row(t)[t / 32 * 32 + lane] = lanes[t * 32 + lane];
    }
  }
}

bool Clocks::knows(int thread, int agent, Time time) const {
  if (agent >= kMaxThreads) {
    return exact_ &&
           (time < row(thread)[column(agent)] || time < barrier_knows_[agent - kMaxThreads]);
  }
  if (time < barrier || agent == thread) return true;
  return (exact_ || agent / 32 == thread / 32) && time < row(thread)[column(agent)];
}

void Clocks::pass_barrier() {
  barrier = ++now;
  if (!exact_) return;
  for (int t = 0; t < threads_; ++t) {
    join(barrier_knows_.data(), row(t) + threads_, kHardwareAgents);
  }
}

void Clocks::pass_warp_sync(int warp, unsigned mask) {
  synced_any_ = true;
  ++now;
  // Whatever one of the lanes knew to be behind it, all of them know now; and what each of them
  // has done itself.
  std::vector<Time> all(width_);
  for (int lane = 0; lane < 32; ++lane) {
    if (mask >> lane & 1) join(all.data(), row(32 * warp + lane), width_);
  }
  for (int lane = 0; lane < 32; ++lane) {
    if (mask >> lane & 1) all[column(32 * warp + lane)] = now;
  }
  for (int lane = 0; lane < 32; ++lane) {
    if (!(mask >> lane & 1)) continue;
    std::copy(all.begin(), all.end(), row(32 * warp + lane));
    released_[32 * warp + lane] = synced_[32 * warp + lane] = now;
  }
}

void Clocks::release(int thread, Clock& to) {
  be_exact();
  to.resize(width_);
  join(to.data(), row(thread), width_);
  to[thread] = released_[thread] = ++now;
}

void Clocks::acquire(int thread, const Clock& from) {
  join(row(thread), from.data(), static_cast<int>(from.size()));
}

void Clocks::publish(int agent, Time time, Clock& to) {
  to.resize(width_);
  to[column(agent)] = std::max(to[column(agent)], time + 1);
}

void Clocks::learn(int thread, int agent, Time time) {
  be_exact();
  Time& known = row(thread)[column(agent)];
  known = std::max(known, time + 1);
}

void Clocks::fence_proxy(int thread) {
  be_exact();
  for (int t = 0; t < threads_; ++t) {
    proxy_[t] = std::max({proxy_[t], barrier, row(thread)[t]});
  }
  proxy_[thread] = released_[thread] = ++now;
}

}  // namespace al::emulator
