// The C interface: runs the tests written in C, and adds what takes threads and device memory.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "common/buffer.hpp"
#include "common/capi/attention_ladder.h"
#include "common/data.hpp"

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

namespace {

// What one call says, or nothing when it is AL_OK.
std::string said(al_status status) { return status == AL_OK ? "" : al_last_error(); }

}  // namespace

TEST_CASE("C interface: softmax of S, with and without LSE, then P V") {
  const float ln2 = 0.6931472f;
  const std::vector<float> scores{0, ln2, 7, ln2, ln2, ln2 * 2};  // [2, 3]; row 0 sees two keys
  const std::vector<float> values{3, 6, 12};                      // column 0 of V
  DeviceBuffer s(6 * kFloat, "S"), p(6 * kFloat, "P"), lse(2 * kFloat, "LSE"), v(48 * kFloat, "V"),
      o(32 * kFloat, "O");
  s.write(scores.data(), s.size());
  std::vector<float> host_v(48);
  for (int j = 0; j < 3; ++j) host_v[16 * j] = values[j];
  v.write(host_v.data(), v.size());
  p.poison();

  al_arguments a{};
  a.struct_size = sizeof a;
  a.dtype = AL_FP32;
  a.batch = 1, a.heads = 1, a.kv_heads = 1, a.seq = 2, a.kv_seq = 3, a.head_dim = 16;
  a.causal = 1;
  a.scale = 1;
  a.o = p.data();
  const auto softmax = [&] { return said(al_run("02_softmax", "online", &a, nullptr)); };
  CHECK(softmax() == "s must not be NULL.");
  a.s = s.data();
  a.q = s.data();
  CHECK(softmax() == "02_softmax online computes softmax and has no q: it must be NULL.");
  a.q = nullptr;
  CHECK(softmax() == "");
  a.lse = static_cast<float*>(lse.data());
  CHECK(softmax() == "");
  std::vector<float> host_p(6), host_lse(2);
  p.read(host_p.data(), p.size());
  lse.read(host_lse.data(), lse.size());
  for (int at : {0, 1, 3, 4, 5}) {
    const float expected[] = {1 / 3.0f, 2 / 3.0f, 0, 0.25f, 0.25f, 0.5f};
    CHECK(host_p[at] == doctest::Approx(expected[at]));
  }
  CHECK(host_p[2] != host_p[2]);  // the masked entry is poison still
  CHECK(host_lse[0] == doctest::Approx(std::log(3.0)));
  CHECK(host_lse[1] == doctest::Approx(std::log(8.0)));

  a.o = o.data();
  const auto pv = [&] { return said(al_run("03_pv", "register_tiles", &a, nullptr)); };
  CHECK(pv() == "03_pv register_tiles computes pv and has no s: it must be NULL.");
  a.s = nullptr;
  CHECK(pv() == "03_pv register_tiles computes pv and has no lse: it must be NULL.");
  a.lse = nullptr;
  a.v = v.data();
  CHECK(pv() == "p must not be NULL.");
  a.p = p.data();
  CHECK(pv() == "");
  std::vector<float> host_o(32);
  o.read(host_o.data(), o.size());
  CHECK(host_o[0] == doctest::Approx(5));
  CHECK(host_o[16] == doctest::Approx(8.25));
  // The whole stage is attention; it takes no P.
  CHECK(said(al_supports("03_pv", "best", &a)) ==
        "03_pv pipeline computes attention and has no p: it must be NULL.");
  a.p = nullptr;
  CHECK(said(al_supports("03_pv", "best", &a)) == "");
}

TEST_CASE("C interface: all of attention in one kernel, with LSE, and no workspace") {
  // q . k / sqrt(16) is ln 2 for the last key and 0 for the others; row 0 sees two keys, row 1
  // three.
  DeviceBuffer q(32 * kFloat, "Q"), k(48 * kFloat, "K"), v(48 * kFloat, "V"), o(32 * kFloat, "O"),
      lse(2 * kFloat, "LSE");
  std::vector<float> host_q(32), host_k(48), host_v(48);
  host_q[0] = host_q[16] = 1;
  host_k[32] = 4 * 0.6931472f;
  host_v[5] = 3, host_v[16 + 5] = 6, host_v[32 + 5] = 12;
  q.write(host_q.data(), q.size());
  k.write(host_k.data(), k.size());
  v.write(host_v.data(), v.size());

  al_arguments a{};
  a.struct_size = sizeof a;
  a.dtype = AL_FP32;
  a.batch = 1, a.heads = 1, a.kv_heads = 1, a.seq = 2, a.kv_seq = 3, a.head_dim = 16;
  a.causal = 1;
  a.scale = NAN;  // the default, 1 / sqrt(16)
  a.q = q.data(), a.k = k.data(), a.v = v.data(), a.o = o.data();
  a.lse = static_cast<float*>(lse.data());
  for (const char* stage : {"04_fused_v1", "05_epilogue_norm_v2"}) {
    CAPTURE(stage);
    o.poison();
    lse.poison();
    CHECK(said(al_run(stage, "best", &a, nullptr)) == "");
    std::vector<float> host_o(32), host_lse(2);
    o.read(host_o.data(), o.size());
    lse.read(host_lse.data(), lse.size());
    CHECK(host_o[5] == doctest::Approx(4.5));
    CHECK(host_o[16 + 5] == doctest::Approx(33 / 4.0));
    CHECK(host_o[6] == 0);
    CHECK(host_lse[0] == doctest::Approx(std::log(2.0)));
    CHECK(host_lse[1] == doctest::Approx(std::log(4.0)));
  }
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

// All scores are 0, so each row of O is the mean of the V that its sequence has.
TEST_CASE("C interface: decoding with lengths and pages") {
  constexpr int kPage = 16, kD = 64;
  std::vector<float> values(3 * kPage * kD, std::nanf(""));  // 3 pages of one head
  const auto row = [&](int page, int j) { return &values[(page * kPage + j) * kD]; };
  for (int d = 0; d < kD; ++d) {
    for (int j = 0; j < kPage; ++j) row(2, j)[d] = static_cast<float>(j);  // sequence 0: 0 … 15
    row(0, 0)[d] = 33;                                                     // … and 33
    row(1, 0)[d] = 5, row(1, 1)[d] = 7;                                    // sequence 1
  }
  const std::vector<float> zeros(values.size());
  const std::vector<int32_t> table{2, 0, 1, -1}, lengths{17, 2};
  DeviceBuffer q(4 * kD * kFloat, "Q"), k(values.size() * kFloat, "K"),
      v(values.size() * kFloat, "V"), o(4 * kD * kFloat, "O"), lse(4 * kFloat, "LSE"),
      pages(4 * 4, "page_table"), kv_len(2 * 4, "kv_len"), workspace(1 << 16, "workspace");
  q.write(zeros.data(), q.size());
  k.write(zeros.data(), k.size());
  v.write(values.data(), v.size());
  pages.write(table.data(), pages.size());
  kv_len.write(lengths.data(), kv_len.size());
  workspace.write(std::vector<std::byte>(workspace.size()).data(), workspace.size());

  al_arguments a{};
  a.struct_size = sizeof a;
  a.dtype = AL_FP32;
  a.batch = 2, a.heads = 2, a.kv_heads = 1, a.seq = 1, a.kv_seq = 20, a.head_dim = kD;
  a.scale = 1;
  a.q = q.data(), a.k = k.data(), a.v = v.data(), a.o = o.data();
  a.lse = static_cast<float*>(lse.data());
  a.kv_len = static_cast<const int32_t*>(kv_len.data());
  a.page_size = kPage;
  a.max_pages = 1;
  const auto decode = [&] { return said(al_run("07_flash_decoding", nullptr, &a, nullptr)); };
  CHECK(decode() == "max_pages 1 is too small: 20 keys take 2 pages of 16.");
  a.max_pages = 2;
  CHECK(decode() == "page_table must not be NULL.");
  a.page_table = static_cast<const int32_t*>(pages.data());
  a.workspace = workspace.data(), a.workspace_bytes = workspace.size();
  for (int run = 0; run < 2; ++run) {  // the second on the workspace that the first one left
    o.poison();
    CHECK(decode() == "");
    std::vector<float> got(4 * kD), got_lse(4);
    o.read(got.data(), o.size());
    lse.read(got_lse.data(), lse.size());
    for (int i = 0; i < 4; ++i) {
      CHECK(got[i * kD] == doctest::Approx(i < 2 ? 153 / 17.0 : 6.0));
      CHECK(got[i * kD + kD - 1] == got[i * kD]);
      CHECK(got_lse[i] == doctest::Approx(std::log(i < 2 ? 17.0 : 2.0)));
    }
  }
}

TEST_CASE("C interface: attention in 8 bits, with a factor a head") {
  constexpr int D = 64;
  const auto filled = [](std::initializer_list<std::uint8_t> rows) {
    std::vector<std::uint8_t> bytes;
    for (const std::uint8_t row : rows) bytes.insert(bytes.end(), D, row);
    DeviceBuffer buffer(bytes.size(), "input");
    buffer.write(bytes.data(), bytes.size());
    return buffer;
  };
  const std::uint8_t zero = 0, one = 0x38, two = 0x40;  // e4m3
  const DeviceBuffer q = filled({one}), k = filled({zero, one}), v = filled({one, two});
  const float factors[] = {0.5f, 0.25f, 3.0f};
  DeviceBuffer scales(sizeof factors, "scales"), o(D * 2, "O"), lse(kFloat, "LSE");
  scales.write(factors, sizeof factors);
  const auto* scale = static_cast<const float*>(scales.data());

  al_arguments a{};
  a.struct_size = sizeof a;
  a.dtype = AL_E4M3;
  a.batch = a.heads = a.kv_heads = a.seq = 1;
  a.kv_seq = 2;
  a.head_dim = D;
  a.scale = std::log(3.0) / 8;  // the scores are 0 and 64 · 0.5 · 0.25 · scale = ln 3
  a.q = q.data(), a.k = k.data(), a.v = v.data(), a.o = o.data();
  a.lse = static_cast<float*>(lse.data());
  a.q_scale = scale, a.k_scale = scale + 1, a.v_scale = scale + 2;
  std::size_t bytes = 0;
  REQUIRE(said(al_workspace_bytes("06_fp8_prefetch_v3", "mma_2_stages", &a, &bytes)) == "");
  DeviceBuffer workspace(bytes, "workspace");
  a.workspace = workspace.data();
  a.workspace_bytes = bytes;
  REQUIRE(said(al_run("06_fp8_prefetch_v3", "mma_2_stages", &a, nullptr)) == "");

  std::vector<std::byte> raw(o.size());
  o.read(raw.data(), raw.size());
  float host_lse = 0;
  lse.read(&host_lse, kFloat);
  CHECK(host_lse == doctest::Approx(std::log(4.0)));
  // 3 (1/4 · 1 + 3/4 · 2), its first weight rounded to 3 bits
  for (const float x : al::decode(al::DType::fp16, raw.data(), D)) {
    CHECK(x == doctest::Approx(5.25).epsilon(0.01));
  }
}
