#include "common/npy.hpp"

#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string_view>

#include "common/data.hpp"
#include "common/error.hpp"
#include "common/files.hpp"

static_assert(std::endian::native == std::endian::little, "elements are copied as they lie");

namespace fs = std::filesystem;

namespace al {
namespace {

constexpr std::string_view magic = "\x93NUMPY";
// NumPy writes 118 bytes for a tensor; more than this is not a header, whatever its length says.
constexpr std::uint32_t longest_header = 1 << 16;

Error bad(const std::string& path, const std::string& what) {
  return usage_error(path + " " + what +
                     " Save it with numpy.save as a C-order float16 or float32 array.");
}

// Reads the header's Python dictionary, {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)},
// keys in any order. Every function is true when what it looks for was there, and steps over it.
struct Scanner {
  std::string_view rest;

  void skip_spaces() { rest.remove_prefix(std::min(rest.find_first_not_of(" \n\t"), rest.size())); }
  bool literal(std::string_view token) {
    skip_spaces();
    if (!rest.starts_with(token)) return false;
    rest.remove_prefix(token.size());
    return true;
  }
  bool quoted(std::string& text) {
    if (!literal("'") && !literal("\"")) return false;
    const std::size_t end = rest.find_first_of("'\"");
    if (end == rest.npos) return false;
    text = rest.substr(0, end);
    rest.remove_prefix(end + 1);
    return true;
  }
  bool boolean(bool& value) {
    value = literal("True");
    return value || literal("False");
  }
  bool size(int& value) {
    skip_spaces();
    const auto [end, failure] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
    if (failure != std::errc{} || value < 0) return false;
    rest.remove_prefix(end - rest.data());
    return true;
  }
  bool tuple(std::vector<int>& sizes) {
    if (!literal("(")) return false;
    while (!literal(")")) {
      int value = 0;
      if (!size(value)) return false;
      sizes.push_back(value);
      if (!literal(",") && !rest.starts_with(")")) return false;
    }
    return true;
  }
};

struct Layout {
  NpyHeader header;
  std::uint64_t elements = 1;
  std::uint64_t data_begin = 0;  // byte of the file at which the elements start
};

// Reads and checks everything but the elements.
Layout read_layout(std::ifstream& file, const std::string& path) {
  std::array<unsigned char, 12> start{};
  file.read(reinterpret_cast<char*>(start.data()), 8);
  if (!file || !std::equal(magic.begin(), magic.end(), reinterpret_cast<char*>(start.data()))) {
    throw bad(path, "is not a .npy file.");
  }
  const int version = start[6];
  if (version < 1 || version > 3) throw bad(path, "is of an unknown .npy version.");
  const int length_bytes = version == 1 ? 2 : 4;
  file.read(reinterpret_cast<char*>(&start[8]), length_bytes);
  std::uint32_t length = 0;
  for (int i = length_bytes - 1; i >= 0; --i) length = length << 8 | start[8 + i];
  if (!file || length > longest_header) throw bad(path, "has a damaged .npy header.");
  std::string text(length, ' ');
  file.read(text.data(), length);
  if (!file) throw bad(path, "ends within its .npy header.");

  Layout layout;
  layout.data_begin = 8 + length_bytes + length;
  std::string type;
  bool fortran_order = false, has_shape = false, has_order = false;
  Scanner scanner{text};
  bool understood = scanner.literal("{");
  while (understood && !scanner.literal("}")) {
    std::string key;
    understood = scanner.quoted(key) && scanner.literal(":");
    if (key == "descr") {
      // A list here means a record type: several fields an element.
      if (understood && !scanner.quoted(type)) throw bad(path, "does not hold plain numbers.");
    } else if (key == "fortran_order") {
      understood = understood && scanner.boolean(fortran_order);
      has_order = true;
    } else if (key == "shape") {
      understood = understood && scanner.tuple(layout.header.shape);
      has_shape = true;
    } else {
      understood = false;
    }
    understood = understood && (scanner.literal(",") || scanner.rest.starts_with("}"));
  }
  if (!understood || type.empty() || !has_order || !has_shape) {
    throw bad(path, "has a damaged .npy header.");
  }
  if (type != "<f4" && type != "<f2") {
    throw bad(path, "holds elements of type '" + type + "', not '<f2' or '<f4'.");
  }
  if (fortran_order) throw bad(path, "is in Fortran (column-major) order.");
  layout.header.element_bytes = type == "<f4" ? 4 : 2;

  for (int size : layout.header.shape) {
    constexpr std::uint64_t most = std::numeric_limits<std::int64_t>::max() / 8;
    if (size > 0 && layout.elements > most / size) {
      throw bad(path, "says it holds more elements than can be counted.");
    }
    layout.elements *= size;
  }
  const std::uint64_t expected = layout.elements * layout.header.element_bytes;
  file.seekg(0, std::ios::end);
  const std::uint64_t present = static_cast<std::uint64_t>(file.tellg()) - layout.data_begin;
  file.seekg(static_cast<std::streamoff>(layout.data_begin));
  if (present != expected) {
    throw bad(path, "is too " + std::string(present < expected ? "short" : "long") +
                        ": its shape needs " + std::to_string(expected) + " bytes and it holds " +
                        std::to_string(present) + ".");
  }
  return layout;
}

std::ifstream open(const std::string& path) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) throw usage_error(path + " is a folder, not a .npy file.");
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    throw usage_error(
        path + (errno == ENOENT ? std::string(" does not exist.")
                                : " cannot be opened: " + std::string(std::strerror(errno)) + "."));
  }
  return file;
}

}  // namespace

NpyHeader read_npy_header(const std::string& path) {
  std::ifstream file = open(path);
  return read_layout(file, path).header;
}

std::vector<float> read_npy(const std::string& path) {
  std::ifstream file = open(path);
  const Layout layout = read_layout(file, path);
  std::vector<float> values;
  if (layout.header.element_bytes == 4) {
    values.resize(layout.elements);
    file.read(reinterpret_cast<char*>(values.data()), layout.elements * 4);
  } else {
    std::vector<std::byte> halves(layout.elements * 2);
    file.read(reinterpret_cast<char*>(halves.data()), halves.size());
    values = decode(DType::fp16, halves.data(), layout.elements);
  }
  if (!file) throw usage_error(path + " could not be read to its end.");
  return values;
}

void write_npy(const std::string& path, const std::vector<int>& shape, int element_bytes,
               const std::vector<float>& values) {
  std::string sizes;
  for (int size : shape) sizes += std::to_string(size) + ", ";
  // A one-element tuple keeps its comma in Python: (3,).
  if (!sizes.empty()) sizes.resize(sizes.size() - (shape.size() == 1 ? 1 : 2));
  std::string header = "{'descr': '<f" + std::to_string(element_bytes) +
                       "', 'fortran_order': False, 'shape': (" + sizes + "), }";
  // The format asks for elements that start at a multiple of 64 bytes, after a newline.
  constexpr std::size_t before_header = 10;
  header.append(63 - (before_header + header.size()) % 64, ' ');
  header += '\n';

  std::vector<std::byte> halves;
  if (element_bytes == 2) halves = encode(DType::fp16, values);
  std::error_code reported_by_write_file;
  fs::create_directories(fs::absolute(path).parent_path(), reported_by_write_file);
  write_file(path, [&](std::ostream& file) {
    const char version_and_length[] = {1, 0, static_cast<char>(header.size() & 0xff),
                                       static_cast<char>(header.size() >> 8)};
    file << magic << std::string_view(version_and_length, 4) << header;
    if (element_bytes == 2) {
      file.write(reinterpret_cast<const char*>(halves.data()), halves.size());
    } else {
      file.write(reinterpret_cast<const char*>(values.data()), values.size() * 4);
    }
  });
}

}  // namespace al
