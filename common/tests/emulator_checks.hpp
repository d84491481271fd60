// What the emulator's own tests share: device arrays, seeds, and the words of a report.
#pragma once

#include <doctest/doctest.h>

#include <fstream>
#include <source_location>
#include <string>
#include <vector>

#include "common/buffer.hpp"
#include "common/emulator/launch.hpp"
#include "common/error.hpp"

#ifdef __SANITIZE_ADDRESS__
#define NEEDS_HOOKS                                                            \
  *doctest::skip(true) * doctest::description(                                 \
                             "ASan takes the place of the hooks on loads and " \
                             "stores that find this")
#define ONLY_WITH_ASAN
#else
#define NEEDS_HOOKS
#define ONLY_WITH_ASAN \
  *doctest::skip(true) * doctest::description("needs AddressSanitizer: see the asan preset")
#endif

namespace al {

// A buffer of T on the device.
template <typename T>
struct Array {
  Array(std::size_t count, const char* name) : buffer(count * sizeof(T), name) { buffer.poison(); }
  Array(const std::vector<T>& values, const char* name) : Array(values.size(), name) {
    buffer.write(values.data(), values.size() * sizeof(T));
  }
  T* data() { return static_cast<T*>(buffer.data()); }
  std::vector<T> host() const {
    std::vector<T> values(buffer.size() / sizeof(T));
    buffer.read(values.data(), buffer.size());
    return values;
  }
  DeviceBuffer buffer;
};

template <typename T>
std::vector<T> iota(int count) {
  std::vector<T> values(count);
  for (int i = 0; i < count; ++i) values[i] = static_cast<T>(i);
  return values;
}

// Calls run() under several seeds.
template <typename Run>
void under_seeds(Run run) {
  const auto before = emulator::settings();
  for (const std::uint64_t seed : {1, 2, 3, 4, 5, 6, 7, 8}) {
    emulator::settings().seed = seed;
    CAPTURE(seed);
    run();
  }
  emulator::settings() = before;
}

// Runs something that must be reported, under several seeds, and asserts that the report has all
// these words in it.
template <typename Run>
void expect_report(const std::vector<std::string>& words, Run run) {
  under_seeds([&] {
    std::string report = "nothing";
    try {
      run();
    } catch (const Error& error) {
      CHECK(error.code == ExitCode::wrong_result);
      report = error.what();
    }
    for (const std::string& word : words) {
      CAPTURE(report);
      CAPTURE(word);
      CHECK(report.find(word) != std::string::npos);
    }
  });
}

// The line of the caller's file that ends in the comment [mark], as reports name it. Tests run in
// the root of the repository.
inline std::string line(const std::string& mark,
                        std::source_location here = std::source_location::current()) {
  const std::string path = here.file_name(), file = path.substr(path.rfind("tests/"));
  std::ifstream text("common/" + file);
  int number = 1;
  for (std::string words; std::getline(text, words); ++number) {
    if (words.ends_with("// [" + mark + "]")) return file + ":" + std::to_string(number);
  }
  return "no line of that mark";
}

}  // namespace al
