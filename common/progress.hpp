// A sign of life on standard error while something takes longer than a second.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace al {

// On a terminal one line that is rewritten in place and wiped at the end; otherwise (a log) a
// line every ten seconds. Silent when the work ends within a second. A thread of its own writes
// it, because one step (a large kernel in the emulator) can itself take minutes.
class Progress {
 public:
  Progress();
  ~Progress() { done(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void step(const std::string& what);  // what is being done from now on
  void done();                         // wipes the line and says no more

 private:
  void report();

  std::mutex mutex_;
  std::condition_variable woken_;
  std::string what_;
  bool finished_ = false;
  std::thread reporter_;  // last: it reads the others from its first moment
};

}  // namespace al
