// The runner from end to end, on stages of one thread a row.
#include "common/runner.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <limits>

#include "common/npy.hpp"
#include "common/report/report.hpp"
#include "common/tests/small_stages.hpp"

namespace al {
namespace {

namespace fs = std::filesystem;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Folder {
  fs::path path = fs::temp_directory_path() / ("al_runner_test_" + std::to_string(getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  std::string operator/(const char* name) const { return (path / name).string(); }
};

int run_as_is(const Stage& stage, std::vector<std::string> words) {
  words.insert(words.begin(), stage.name);
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  return stage_main(static_cast<int>(argv.size()), argv.data(), stage);
}

int run(const Stage& stage, std::vector<std::string> words) {
  for (const char* word : {"--check", "--batch", "2", "--heads", "4", "--kv-heads", "2", "--seq",
                           "9", "--kv-seq", "7", "--head-dim", "16"}) {
    words.push_back(word);
  }
  return run_as_is(stage, words);
}

TEST_CASE("runner: every variant on its own operation, in the pipeline's order") {
  const SmallStages stages;
  const Folder folder;
  REQUIRE(run(stages.second, {"--data", "outliers", "--json", folder / "all.json"}) == 0);
  const Results results = read_results(folder / "all.json");
  std::vector<std::string> rows;
  for (const Row& row : results.rows) {
    rows.push_back(row.stage + "/" + row.variant + " " + to_string(row.problem.operation));
    CHECK(row.error.ok);
    CHECK(row.config == "custom");
  }
  CHECK(rows == std::vector<std::string>{"first/rows scores", "second/softmax softmax",
                                         "second/probabilities probabilities", "second/pv pv",
                                         "second/attention attention"});
  CHECK(results.rows[0].role == Role::prior);
}

// Query 0 and 1 of each head see no key.
TEST_CASE("runner: --save writes what the variant computes, masked entries told apart") {
  const SmallStages stages;
  const Folder folder;
  const auto saved = [&](const Stage& stage, const char* variant, const char* file,
                         std::vector<int> shape, const char* dtype = "fp16") {
    fs::remove_all(folder / "out");
    REQUIRE(run(stage, {"--variant", variant, "--save", folder / "out", "--dtype", dtype}) == 0);
    const NpyHeader header = read_npy_header((fs::path(folder / "out") / file).string());
    CHECK(header.shape == shape);
    CHECK(header.element_bytes == (std::string(file) == "s.npy" ? 4 : 2));
    return read_npy((fs::path(folder / "out") / file).string());
  };
  const auto files = [&] { return std::distance(fs::directory_iterator(folder / "out"), {}); };
  const std::vector<int> square{2, 4, 9, 7}, tall{2, 4, 9, 16};

  const std::vector<float> s = saved(stages.first, "rows", "s.npy", square);
  CHECK(files() == 1);
  for (const char* name : {"softmax", "probabilities"}) {
    const std::vector<float> p = saved(stages.second, name, "p.npy", square);
    CHECK(files() == 1);
    for (int row = 0; row < 9; ++row) {
      double sum = 0;
      for (int j = 0; j < 7; ++j) {
        const bool visible = j <= row - 2;
        CHECK((p[row * 7 + j] > 0) == visible);
        CHECK((s[row * 7 + j] > -kInfinity) == visible);
        sum += p[row * 7 + j];
      }
      CHECK(sum == doctest::Approx(row < 2 ? 0 : 1).epsilon(2e-3));
    }
  }
  const std::vector<float> o = saved(stages.second, "pv", "o.npy", tall);
  CHECK(files() == 1);
  CHECK(o[0] == 0);
  CHECK(o[2 * 16] != 0);

  saved(stages.second, "best", "o.npy", tall);
  CHECK(files() == 2);
  const std::vector<float> lse = read_npy((fs::path(folder / "out") / "lse.npy").string());
  CHECK(lse.size() == 72);
  CHECK(lse[1] == -kInfinity);
  CHECK(lse[2] == doctest::Approx(s[2 * 7]));
}

TEST_CASE("runner: --sweep seq takes every length, and grows the keys of a decode") {
  const SmallStages stages;
  const Folder folder;
  const auto swept = [&](std::vector<std::string> words) {
    for (const char* word : {"--check", "--heads", "2", "--head-dim", "16", "--sweep", "seq=4:20",
                             "--variant", "attention", "--json"}) {
      words.push_back(word);
    }
    words.push_back(folder / "sweep.json");
    REQUIRE(run_as_is(stages.second, words) == 0);
    std::vector<std::string> rows;
    for (const Row& row : read_results(folder / "sweep.json").rows) {
      if (row.role == Role::stage) rows.push_back(row.config + " " + to_string(row.problem));
    }
    return rows;
  };
  CHECK(swept({}) == std::vector<std::string>{"seq4 B1 H2 N4 D16 fp16 causal",
                                              "seq8 B1 H2 N8 D16 fp16 causal",
                                              "seq16 B1 H2 N16 D16 fp16 causal"});
  CHECK(swept({"--tokens", "24"}) == std::vector<std::string>{"seq4 B6 H2 N4 D16 fp16 causal",
                                                              "seq8 B3 H2 N8 D16 fp16 causal",
                                                              "seq16 B1 H2 N16 D16 fp16 causal"});
  CHECK(swept({"--config", "decode_8k"}) ==
        std::vector<std::string>{"seq4 B1 H2 N1 Nkv4 D16 fp16 full",
                                 "seq8 B1 H2 N1 Nkv8 D16 fp16 full",
                                 "seq16 B1 H2 N1 Nkv16 D16 fp16 full"});
}

TEST_CASE("runner: what one variant has no memory for does not cost the others their rows") {
  const SmallStages stages;
  const Folder folder;
  Variant greedy = find_variant(stages.second, "attention");
  greedy.prior = nullptr;
  const Variant modest = greedy;
  greedy.name = "greedy";
  greedy.workspace = [](const Problem&) { return std::size_t{1} << 60; };
  const Variant variants[] = {greedy, modest};
  Stage stage = stages.second;
  stage.variants = variants;
  stage.best = [](const Problem&, const DeviceInfo&) { return 1; };
  REQUIRE(run(stage, {"--json", folder / "memory.json"}) == 0);
  const Results results = read_results(folder / "memory.json");
  REQUIRE(results.rows.size() == 2);
  CHECK(results.rows[0].refused.find("workspace 1.15e+09 GB) and ") != std::string::npos);
  CHECK(results.rows[1].refused == "");
  CHECK(results.rows[1].error.ok);
  CHECK(run(stage, {"--variant", "greedy"}) == 2);
}

TEST_CASE("runner: --load feeds what an operation reads") {
  const SmallStages stages;
  const Folder folder;
  const std::vector<int> like_q{2, 4, 9, 16}, like_k{2, 2, 7, 16};
  write_npy(folder / "q.npy", like_q, 2, std::vector<float>(2 * 4 * 9 * 16, 0.5f));
  write_npy(folder / "k.npy", like_k, 2, std::vector<float>(2 * 2 * 7 * 16, 0.25f));
  REQUIRE(run(stages.first, {"--load", folder.path, "--save", folder / "out"}) == 0);
  const std::vector<float> s = read_npy((fs::path(folder / "out") / "s.npy").string());
  CHECK(s[2 * 7] == 0.5f);  // 16 * 0.5 * 0.25 / 4
  CHECK(run(stages.second, {"--load", folder.path}) == 2);
  write_npy(folder / "v.npy", like_k, 2, std::vector<float>(2 * 2 * 7 * 16, 3.0f));
  REQUIRE(run(stages.second, {"--load", folder.path, "--save", folder / "out"}) == 0);
  const std::vector<float> o = read_npy((fs::path(folder / "out") / "o.npy").string());
  CHECK(o[8 * 16] == 3);
  REQUIRE(run(stages.second, {"--load", folder.path}) == 0);  // also what makes S and P up
}

TEST_CASE("runner: a kernel that reads masked entries of P is found out") {
  const SmallStages stages;
  const Folder folder;
  CHECK(run(stages.wrong, {"--variant", "pv", "--json", folder / "x.json"}) == 1);
}

}  // namespace
}  // namespace al
