// The C interface: runs the tests written in C, and adds what takes threads and device memory.
#include <doctest/doctest.h>

#include <string>
#include <thread>
#include <vector>

#include "common/buffer.hpp"
#include "common/capi/attention_ladder.h"

extern "C" {
int c_lists();
int c_bad_names();
int c_bad_arguments();
int c_run(const char* variant, const float* q, const float* k, float* o);
}

using al::DeviceBuffer;

namespace {

constexpr std::size_t kFloat = sizeof(float);

// q = two heads of two rows, k = three rows of one head; only columns 0 and 15 are not zero.
struct SmallScores {
  DeviceBuffer q{64 * kFloat, "Q"}, k{48 * kFloat, "K"}, o{12 * kFloat, "S"};

  SmallScores() {
    std::vector<float> host_q(64), host_k(48);
    const float q_ends[4][2] = {{1, 0}, {0, 2}, {3, 4}, {-1, 0.5f}};
    const float k_ends[3][2] = {{4, 8}, {-2, 6}, {0, 1}};
    for (int row = 0; row < 4; ++row) {
      host_q[16 * row] = q_ends[row][0], host_q[16 * row + 15] = q_ends[row][1];
    }
    for (int row = 0; row < 3; ++row) {
      host_k[16 * row] = k_ends[row][0], host_k[16 * row + 15] = k_ends[row][1];
    }
    q.write(host_q.data(), q.size());
    k.write(host_k.data(), k.size());
    o.poison();
  }
  std::vector<float> result() const {
    std::vector<float> s(12);
    o.read(s.data(), o.size());
    return s;
  }
};

}  // namespace

TEST_CASE("C interface: lists") { CHECK_MESSAGE(c_lists() == 0, al_last_error()); }
TEST_CASE("C interface: bad names") { CHECK_MESSAGE(c_bad_names() == 0, al_last_error()); }
TEST_CASE("C interface: bad arguments") { CHECK_MESSAGE(c_bad_arguments() == 0, al_last_error()); }

TEST_CASE("C interface: runs every rung of 01 on scores computed by hand") {
  for (const char* variant :
       {"uncoalesced", "coalesced", "shared_tiles", "register_tiles", "best"}) {
    CAPTURE(variant);
    const SmallScores small;
    const int line =
        c_run(variant, static_cast<const float*>(small.q.data()),
              static_cast<const float*>(small.k.data()), static_cast<float*>(small.o.data()));
    CHECK_MESSAGE(line == 0, al_last_error());
    // q.k / sqrt(16)
    const std::vector<float> expected = {1,  -0.5f, 0, 4, 3,     0.5f,  //
                                         11, 4.5f,  1, 0, 1.25f, 0.125f};
    CHECK(small.result() == expected);
  }
}

TEST_CASE("C interface: causal leaves the masked score alone") {
  const SmallScores small;
  al_arguments a{};
  a.struct_size = sizeof a;
  a.dtype = AL_FP32;
  a.batch = 1, a.heads = 2, a.kv_heads = 1, a.seq = 2, a.kv_seq = 3, a.head_dim = 16;
  a.causal = 1;
  a.scale = 2;
  a.q = small.q.data(), a.k = small.k.data(), a.o = small.o.data();
  REQUIRE_MESSAGE(al_run("01_naive_qk", "coalesced", &a, nullptr) == AL_OK, al_last_error());
  const std::vector<float> s = small.result();
  CHECK(s[0] == 8);
  CHECK(s[1] == -4);  // query 0 sees two of three keys
  CHECK(s[5] == 4);
}

TEST_CASE("C interface: each thread has its own last error") {
  int32_t count = 0;
  REQUIRE(al_variant_count("here", &count) == AL_UNSUPPORTED);
  std::string before, after;
  std::thread([&] {
    before = al_last_error();
    al_variant_count("there", &count);
    after = al_last_error();
  }).join();
  CHECK(before == "");
  CHECK(after.find("'there'") != std::string::npos);
  CHECK(std::string(al_last_error()).find("'here'") != std::string::npos);
  // A success leaves the text alone.
  REQUIRE(al_stage_count(&count) == AL_OK);
  CHECK(std::string(al_last_error()).find("'here'") != std::string::npos);
}

TEST_CASE("C interface: several threads run at once") {
  std::vector<SmallScores> tensors(4);
  std::vector<int> lines(4);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      lines[t] = c_run("register_tiles", static_cast<const float*>(tensors[t].q.data()),
                       static_cast<const float*>(tensors[t].k.data()),
                       static_cast<float*>(tensors[t].o.data()));
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(lines == std::vector<int>(4, 0));
  for (const SmallScores& small : tensors) CHECK(small.result()[6] == 11);
}
