// Device memory, its poison, and the count of what a kernel left unwritten.
#include "common/buffer.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/error.hpp"
#include "common/poison.cuh"

namespace al {
namespace {

TEST_CASE("bytes come back as they were written, also in pieces") {
  std::vector<unsigned char> bytes(1000);
  std::iota(bytes.begin(), bytes.end(), static_cast<unsigned char>(3));
  DeviceBuffer buffer(bytes.size(), "bytes");
  CHECK(buffer.size() == bytes.size());
  CHECK(reinterpret_cast<std::uintptr_t>(buffer.data()) % 256 == 0);
  buffer.write(bytes.data(), 300);
  buffer.write(bytes.data() + 300, 700, 300);

  std::vector<unsigned char> back(bytes.size());
  buffer.read(back.data(), back.size());
  CHECK(back == bytes);
  unsigned char one = 0;
  buffer.read(&one, 1, 999);
  CHECK(one == bytes[999]);
}

TEST_CASE("poison reaches every byte") {
  DeviceBuffer buffer(777, "poisoned");
  const std::vector<unsigned char> zeros(777);
  buffer.write(zeros.data(), zeros.size());
  buffer.poison();
  std::vector<unsigned char> back(777);
  buffer.read(back.data(), back.size());
  CHECK(back == std::vector<unsigned char>(777, 0xff));
}

TEST_CASE("moving hands the memory over; an empty buffer is harmless") {
  DeviceBuffer empty;
  CHECK(empty.size() == 0);
  CHECK(empty.data() == nullptr);
  empty.poison();
  DeviceBuffer first(64, "first");
  void* const data = first.data();
  const DeviceBuffer second = std::move(first);
  CHECK(second.data() == data);
  CHECK(second.size() == 64);
}

TEST_CASE("a copy that leaves the buffer is refused") {
  DeviceBuffer buffer(16, "small");
  char host[32] = {};
  CHECK_THROWS_AS(buffer.write(host, 17), std::out_of_range);
  CHECK_THROWS_AS(buffer.read(host, 16, 1), std::out_of_range);
  CHECK_THROWS_AS(buffer.read(host, 1, std::size_t(-1)), std::out_of_range);
}

TEST_CASE("more than the device has is a usage error that names the tensor") {
  try {
    DeviceBuffer buffer(std::size_t{1} << 55, "S");
    FAIL("2^55 bytes were allocated");
  } catch (const Error& error) {
    CHECK(error.code == ExitCode::usage);
    CHECK(std::string(error.what()).find("No room for S") == 0);
  }
}

// Ragged, so that rows start anywhere in the 16 bytes a thread looks at.
Problem small_scores(int seq, int kv_seq, bool causal) {
  Problem p;
  p.operation = Operation::scores;
  p.heads = p.kv_heads = 3;
  p.seq = seq;
  p.kv_seq = kv_seq;
  p.causal = causal;
  return p;
}

TEST_CASE("masked entries of P do not count; all of O does") {
  Problem p = small_scores(5, 7, true);
  p.head_dim = 16;
  for (const auto& [operation, count] : {std::pair{Operation::softmax, 3 * (3 + 4 + 5 + 6 + 7)},
                                         {Operation::probabilities, 3 * (3 + 4 + 5 + 6 + 7)},
                                         {Operation::pv, 3 * 5 * 16}}) {
    p.operation = operation;
    DeviceBuffer out(p.out_bytes(), "out");
    out.poison();
    CHECK(count_unwritten(p, out.data()) == count);
  }
}

TEST_CASE("all of a poisoned result is unwritten, except what is masked") {
  for (const bool causal : {false, true}) {
    for (const auto& [seq, kv_seq] : {std::pair{5, 7}, {7, 5}, {33, 130}, {1, 1}}) {
      const Problem p = small_scores(seq, kv_seq, causal);
      std::int64_t visible = 0;
      for (int i = 0; i < seq; ++i) visible += p.heads * p.visible_keys(i);
      DeviceBuffer out(p.out_bytes(), "S");
      out.poison();
      CAPTURE(to_string(p));
      CHECK(count_unwritten(p, out.data()) == visible);
    }
  }
}

TEST_CASE("one visible element that was not written is found, wherever it is") {
  const Problem p = small_scores(5, 7, true);  // query i sees the keys j <= i + 2
  DeviceBuffer out(p.out_bytes(), "S");
  for (std::int64_t skipped = 0; skipped < p.out_elements(); ++skipped) {
    std::vector<float> values(p.out_elements(), 1.0f);
    out.poison();
    out.write(values.data(), skipped * sizeof(float));
    const std::int64_t rest = p.out_elements() - skipped - 1;
    out.write(values.data(), rest * sizeof(float), (skipped + 1) * sizeof(float));
    const int i = static_cast<int>(skipped / 7 % 5), j = static_cast<int>(skipped % 7);
    CAPTURE(skipped);
    CHECK(count_unwritten(p, out.data()) == (j <= i + 2 ? 1 : 0));
  }
}

TEST_CASE("16-bit results are counted by their own elements") {
  Problem p;
  p.heads = p.kv_heads = 2;
  p.seq = p.kv_seq = 13;
  p.head_dim = 16;
  DeviceBuffer out(p.out_bytes(), "O");
  out.poison();
  CHECK(count_unwritten(p, out.data()) == p.out_elements());
  const std::vector<std::uint16_t> values(p.out_elements(), 0x7fff);  // a kernel's own NaN
  out.write(values.data(), p.out_bytes() - 2);
  CHECK(count_unwritten(p, out.data()) == 1);
  out.write(values.data(), p.out_bytes());
  CHECK(count_unwritten(p, out.data()) == 0);
}

}  // namespace
}  // namespace al
