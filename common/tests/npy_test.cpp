#include "common/npy.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

#include "common/error.hpp"

using namespace al;
namespace fs = std::filesystem;

namespace {

struct Folder {
  fs::path path = fs::temp_directory_path() / ("al_npy_test_" + std::to_string(getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
};

std::string read_bytes(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write_bytes(const fs::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

// A file as NumPy would write it, from its parts.
std::string npy(const std::string& dictionary, const std::string& data, int version = 1) {
  std::string bytes = std::string("\x93NUMPY") + static_cast<char>(version) + '\0';
  const auto length = static_cast<unsigned>(dictionary.size());
  for (int i = 0; i < (version == 1 ? 2 : 4); ++i) bytes += static_cast<char>(length >> 8 * i);
  return bytes + dictionary + data;
}

std::string floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

// What read_npy and read_npy_header, which must agree, say against a file of these bytes.
std::string complaint(const fs::path& path, const std::string& bytes) {
  write_bytes(path, bytes);
  std::string texts[2];
  for (int whole = 0; whole < 2; ++whole) {
    try {
      if (whole) {
        read_npy(path);
      } else {
        read_npy_header(path);
      }
    } catch (const Error& error) {
      CHECK(error.code == ExitCode::usage);
      texts[whole] = error.what();
    }
  }
  CHECK(texts[0] == texts[1]);
  if (!texts[0].empty()) CHECK(texts[0].find(path.string()) == 0);
  return texts[0];
}

bool has(const std::string& text, const std::string& part) {
  if (text.find(part) != text.npos) return true;
  MESSAGE("'" << text << "' does not say '" << part << "'");
  return false;
}

constexpr const char* good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }\n";

}  // namespace

TEST_CASE("npy: what is written is read back") {
  const Folder folder;
  const std::string path = folder.path / "new" / "x.npy";  // the folder is made
  const float infinity = std::numeric_limits<float>::infinity();
  const std::vector<float> values{0.0f, -0.0f, 1.5f, -65504.0f, 0x1p-24f, infinity};
  for (int element_bytes : {2, 4}) {
    for (const std::vector<int>& shape : std::vector<std::vector<int>>{{6}, {2, 3}, {1, 2, 1, 3}}) {
      write_npy(path, shape, element_bytes, values);
      const NpyHeader header = read_npy_header(path);
      CHECK(header.shape == shape);
      CHECK(header.element_bytes == element_bytes);
      const std::vector<float> back = read_npy(path);
      REQUIRE(back.size() == values.size());
      // Byte for byte: -0 is not 0.
      CHECK(std::memcmp(back.data(), values.data(), values.size() * 4) == 0);
      CHECK(read_bytes(path).size() % 64 == values.size() * element_bytes);  // aligned data
    }
  }
  write_npy(path, {1}, 2, {std::nanf("")});
  CHECK(std::isnan(read_npy(path).at(0)));
  write_npy(path, {1}, 2, {1.0f + 0x1p-11f});  // halfway between two halves: to even
  CHECK(read_npy(path).at(0) == 1.0f);
  write_npy(path, {1}, 4, {std::nanf("")});
  CHECK(std::isnan(read_npy(path).at(0)));
  CHECK(std::distance(fs::directory_iterator(folder.path / "new"), {}) == 1);  // no leftovers
}

TEST_CASE("npy: NumPy agrees, where there is one") {
  if (std::system("python3 -c 'import numpy' 2>/dev/null") != 0) {
    MESSAGE("SKIP: python3 has no numpy here");
    return;
  }
  const Folder folder;
  write_npy(folder.path / "a.npy", {1, 2, 1, 3}, 2, {0, 1, 2, 3, 4, 0.5f});
  const std::string script =
      "import numpy as np, sys; d = sys.argv[1]; a = np.load(d + '/a.npy');"
      "assert a.dtype == np.float16 and a.shape == (1, 2, 1, 3) and a[0, 1, 0, 2] == 0.5;"
      "np.save(d + '/b.npy', np.arange(24, dtype='f4').reshape(2, 3, 2, 2));"
      "np.save(d + '/c.npy', np.asfortranarray(np.zeros((2, 3), 'f4')));"
      "np.save(d + '/d.npy', np.zeros((2, 3)))";
  REQUIRE(std::system(("python3 -c \"" + script + "\" " + folder.path.string()).c_str()) == 0);
  CHECK(read_npy_header(folder.path / "b.npy").shape == std::vector<int>{2, 3, 2, 2});
  CHECK(read_npy(folder.path / "b.npy").at(23) == 23.0f);
  CHECK_THROWS_WITH_AS(read_npy(folder.path / "c.npy"), doctest::Contains("Fortran"), Error);
  CHECK_THROWS_WITH_AS(read_npy(folder.path / "d.npy"), doctest::Contains("'<f8'"), Error);
}

TEST_CASE("npy: headers that are unusual and right") {
  const Folder folder;
  const fs::path path = folder.path / "x.npy";
  const std::vector<float> values{1, 2, 3, 4, 5, 6};
  for (int version : {1, 2, 3}) {
    write_bytes(path, npy(good, floats(values), version));
    CHECK(read_npy(path) == values);
  }
  write_bytes(path,
              npy("{\"shape\":(2,3),\"fortran_order\":False,\"descr\":\"<f4\"}", floats(values)));
  CHECK(read_npy_header(path).shape == std::vector<int>{2, 3});
  write_bytes(path, npy("{'descr': '<f4', 'fortran_order': False, 'shape': ()}", floats({7})));
  CHECK(read_npy(path) == std::vector<float>{7});
  write_bytes(path, npy("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3)}", ""));
  CHECK(read_npy(path).empty());
}

TEST_CASE("npy: files that are wrong") {
  const Folder folder;
  const fs::path path = folder.path / "x.npy";
  const std::string data = floats({1, 2, 3, 4, 5, 6});
  const auto header = [&](const std::string& dictionary) {
    return complaint(path, npy(dictionary, data));
  };

  CHECK(complaint(path, npy(good, data)) == "");
  CHECK(has(complaint(path, ""), "not a .npy file"));
  CHECK(has(complaint(path, "\x93NUM"), "not a .npy file"));
  CHECK(has(complaint(path, "PK\x03\x04 an archive, as .npz is"), "not a .npy file"));
  CHECK(has(complaint(path, npy(good, data, 9)), "unknown .npy version"));
  CHECK(has(complaint(path, npy(good, data + "x")),
            "too long: its shape needs 24 bytes and it holds 25"));
  CHECK(has(complaint(path, npy(good, data.substr(1))), "too short"));
  CHECK(has(complaint(path, npy(good, "")), "too short"));
  CHECK(has(complaint(path, npy(good, data).substr(0, 30)), "ends within its .npy header"));
  CHECK(has(complaint(path, npy(good, data).substr(0, 9)), "damaged"));
  // A header length of 4 GiB must not be allocated.
  CHECK(has(complaint(path, std::string("\x93NUMPY\x02\x00\xff\xff\xff\xff", 12)), "damaged"));

  CHECK(has(header("{'descr': '<f8', 'fortran_order': False, 'shape': (2, 3)}"), "'<f8'"));
  CHECK(has(header("{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3)}"), "'>f4'"));
  CHECK(has(header("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3)}"), "Fortran"));
  CHECK(has(header("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2, 3)}"),
            "plain numbers"));
  CHECK(has(header("{'descr': '<f4', 'fortran_order': False}"), "damaged"));
  CHECK(has(header("{'descr': '<f4', 'shape': (2, 3)}"), "damaged"));
  CHECK(has(header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, -3)}"), "damaged"));
  CHECK(has(header("{'descr': '<f4', 'fortran_order': False, 'shape': (2 3)}"), "damaged"));
  CHECK(has(header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)"), "damaged"));
  CHECK(has(header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 99999999999)}"),
            "damaged"));
  CHECK(has(header("{'descr': '<f4', 'fortran_order': False, 'shape': (2147483647, 2147483647, "
                   "2147483647)}"),
            "more elements than can be counted"));
  CHECK(has(header("{'descr"), "damaged"));
  CHECK(has(header(""), "damaged"));
  CHECK(has(header(std::string(200, '\xff')), "damaged"));
}

TEST_CASE("npy: places that are wrong") {
  const Folder folder;
  CHECK_THROWS_WITH_AS(read_npy(folder.path / "x.npy"), doctest::Contains("does not exist"), Error);
  CHECK_THROWS_WITH_AS(read_npy(folder.path), doctest::Contains("is a folder"), Error);
  CHECK_THROWS_WITH_AS(write_npy("/proc/x.npy", {1}, 4, {1}), doctest::Contains("/proc/x.npy"),
                       Error);
  // A disk that is full: nothing but the message remains.
  CHECK_THROWS_WITH_AS(write_npy("/dev/full", {1}, 4, {1}), doctest::Contains("No space"), Error);
}
