#include "common/progress.hpp"

#include <unistd.h>

#include <chrono>
#include <cstdio>

namespace al {

using namespace std::chrono_literals;

Progress::Progress() : reporter_([this] { report(); }) {}

void Progress::done() {
  {
    std::lock_guard lock(mutex_);
    finished_ = true;
  }
  woken_.notify_one();
  if (reporter_.joinable()) reporter_.join();
}

void Progress::step(const std::string& what) {
  std::lock_guard lock(mutex_);
  what_ = what;
}

void Progress::report() {
  const bool terminal = isatty(STDERR_FILENO);
  const auto start = std::chrono::steady_clock::now();
  bool shown = false;
  std::unique_lock lock(mutex_);
  for (auto pause = 1000ms; !woken_.wait_for(lock, pause, [this] { return finished_; });
       pause = terminal ? 200ms : 10000ms) {
    const auto elapsed = std::chrono::steady_clock::now() - start;
    const int seconds = static_cast<int>(elapsed / 1s);
    // On a terminal: back to column 0, erase the line, write it anew.
    std::fprintf(stderr, terminal ? "\r\033[K%s (%d s)" : "%s (%d s)\n", what_.c_str(), seconds);
    std::fflush(stderr);
    shown = true;
  }
  if (shown && terminal) std::fputs("\r\033[K", stderr);
}

}  // namespace al
