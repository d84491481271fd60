// The runner from end to end, on stages of one thread a row.
#include "common/runner.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <limits>

#include "common/npy.hpp"
#include "common/report.hpp"
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

int run(const Stage& stage, std::vector<std::string> words) {
  words.insert(words.begin(), stage.name);
  for (const char* word : {"--check", "--batch", "2", "--heads", "4", "--kv-heads", "2", "--seq",
                           "9", "--kv-seq", "7", "--head-dim", "16"}) {
    words.push_back(word);
  }
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  return stage_main(static_cast<int>(argv.size()), argv.data(), stage);
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
