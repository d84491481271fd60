#include "common/options.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <initializer_list>

#include "common/error.hpp"
#include "common/npy.hpp"

using namespace al;
namespace fs = std::filesystem;

namespace {

const Program stage{.name = "01_naive_qk",
                    .title = "S = scale Q K^T on CUDA cores",
                    .operation = Operation::scores,
                    .variants = {"naive", "coalesced", "shared_tiles", "register_tiles"}};
const Program softmax{.name = "02_softmax",
                      .title = "P = softmax(S)",
                      .operation = Operation::probabilities,
                      .variants = {"online"}};
const Program attention{.name = "04_fused_v1", .title = "One kernel", .variants = {"fused"}};
const Program ladder{
    .name = "ladder", .title = "Every stage", .variants = {"fused"}, .is_ladder = true};
const Program one_query{
    .name = "07_flash_decoding", .title = "One query", .variants = {"split"}, .default_seq = 1};

Options parse(std::initializer_list<const char*> words, const Program& program = stage) {
  std::vector<const char*> argv{program.name.c_str()};
  argv.insert(argv.end(), words);
  const auto options = parse_options(static_cast<int>(argv.size()), argv.data(), program);
  REQUIRE(options);
  return *options;
}

Problem one(std::initializer_list<const char*> words, const Program& program = stage) {
  const Options options = parse(words, program);
  REQUIRE(options.problems.size() == 1);
  return options.problems[0].problem;
}

// The complaint about these words: one sentence or two on one line, exit code 2.
std::string complaint(std::initializer_list<const char*> words, const Program& program = stage) {
  std::vector<const char*> argv{program.name.c_str()};
  argv.insert(argv.end(), words);
  try {
    parse_options(static_cast<int>(argv.size()), argv.data(), program);
  } catch (const Error& error) {
    CHECK(error.code == ExitCode::usage);
    const std::string text = error.what();
    CHECK(text.find('\n') == text.npos);
    CHECK(text.back() == '.');
    return text;
  }
  return "";
}

bool has(const std::string& text, std::initializer_list<const char*> parts) {
  for (const char* part : parts) {
    if (text.find(part) != text.npos) continue;
    MESSAGE("'" << text << "' does not say '" << part << "'");
    return false;
  }
  return true;
}

// A folder of this test's own, gone at its end.
struct Folder {
  fs::path path = fs::temp_directory_path() / ("al_options_test_" + std::to_string(getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  std::string operator/(const char* name) const { return (path / name).string(); }
  bool empty() const { return fs::is_empty(path); }
};

void write_tensor(const std::string& path, const std::vector<int>& shape, int element_bytes = 4) {
  std::size_t elements = 1;
  for (int size : shape) elements *= size;
  write_npy(path, shape, element_bytes, std::vector<float>(elements, 1.0f));
}

}  // namespace

TEST_CASE("without options: tiny, fp16, causal, all variants") {
  const Options options = parse({});
  REQUIRE(options.problems.size() == 1);
  CHECK(options.problems[0].config == "tiny");
  const Problem& p = options.problems[0].problem;
  CHECK(to_string(p) == "B1 H8 N1024 D64 fp16 causal");
  CHECK(p.operation == Operation::scores);
  CHECK(p.scale == 0.125);
  CHECK(options.variants == std::vector<std::string>{"all"});
  CHECK(options.seed == 1);
  CHECK(options.iters == 0);
  CHECK(options.data == Distribution::normal);
  CHECK(options.sweep == Sweep::none);
  CHECK_FALSE(options.check_only);
  CHECK_FALSE(options.list);
}

TEST_CASE("the published shapes are those of the contract") {
  std::string all;
  for (const NamedProblem& named : published_configs()) {
    all += named.config + ": " + to_string(named.problem) + "\n";
    CHECK(named.problem.scale == doctest::Approx(1 / std::sqrt(named.problem.head_dim)));
    CHECK_NOTHROW(validate(named.problem));
  }
  CHECK(all ==
        "tiny: B1 H8 N1024 D64 fp16 causal\n"
        "hdim64_seq4k: B4 H32 N4096 D64 fp16 causal\n"
        "hdim128_seq8k: B2 H16 N8192 D128 fp16 causal\n"
        "hdim256_seq16k: B1 H8 N16384 D256 fp16 causal\n"
        "decode_8k: B1 H16 N1 Nkv8192 D64 fp16 full\n"
        "decode_64k: B1 H16 N1 Nkv65536 D64 fp16 full\n"
        "decode_128k: B1 H16 N1 Nkv131072 D64 fp16 full\n"
        "decode_8k_gqa: B1 H32 Hkv8 N1 Nkv8192 D128 fp16 full\n"
        "decode_64k_gqa: B1 H32 Hkv8 N1 Nkv65536 D128 fp16 full\n"
        "decode_128k_gqa: B1 H32 Hkv8 N1 Nkv131072 D128 fp16 full\n"
        "softmax_1k: B1 H16 N1024 D64 fp16 full\n"
        "softmax_4k: B1 H4 N4096 D64 fp16 full\n"
        "softmax_8k: B1 H2 N8192 D64 fp16 full\n");
}

TEST_CASE("every combination of config, dtype and mask, in that order") {
  const Options options =
      parse({"--full", "--config", "tiny,hdim64_seq4k", "--causal", "--dtype", "fp32,bf16"});
  std::vector<std::string> found;
  for (const NamedProblem& named : options.problems) {
    found.push_back(named.config + " " + to_string(named.problem.dtype) +
                    (named.problem.causal ? " causal" : " full"));
  }
  CHECK(found == std::vector<std::string>{"tiny fp32 causal", "tiny fp32 full", "tiny bf16 causal",
                                          "tiny bf16 full", "hdim64_seq4k fp32 causal",
                                          "hdim64_seq4k fp32 full", "hdim64_seq4k bf16 causal",
                                          "hdim64_seq4k bf16 full"});
  CHECK(parse({"--config", "tiny", "--config", "hdim64_seq4k"}).problems.size() == 2);
  CHECK(parse({"--config", "all"}).problems.size() == 4);
  CHECK(parse({"--config", "all", "--full", "--dtype", "fp32,fp16,bf16"}).problems.size() == 12);
}

TEST_CASE("K and V of their own dtype, in pages, with lengths") {
  const Options options = parse(
      {"--batch", "3", "--kv-dtype", "fp16,e4m3", "--page-size", "16,64", "--kv-len", "1024,0,7"});
  std::vector<std::string> found;
  for (const NamedProblem& named : options.problems) found.push_back(to_string(named.problem));
  const std::string shape = "B3 H8 N1024 D64 fp16 causal ";
  CHECK(found == std::vector<std::string>{shape + "keys 0–1024 pages of 16",
                                          shape + "keys 0–1024 pages of 64",
                                          shape + "kv e4m3 keys 0–1024 pages of 16",
                                          shape + "kv e4m3 keys 0–1024 pages of 64"});
  const auto lengths = [](const char* seed) {
    return parse({"--batch", "50", "--kv-len", "random", "--seed", seed})
        .problems[0]
        .problem.kv_len;
  };
  REQUIRE(lengths("1").size() == 50);
  CHECK(lengths("1") == lengths("1"));
  CHECK(lengths("1") != lengths("2"));
  CHECK(lengths("1")[0] == 1024);
  CHECK(std::ranges::min(lengths("1")) >= 1);
  CHECK(complaint({"--kv-len", "5,x"}) ==
        "--kv-len takes a whole number from 0 to 2147483647, not x.");
  CHECK(complaint({"--kv-len", "5,6"}) ==
        "--kv-len names 2 lengths for --batch 1: give one for each.");
  CHECK(complaint({"--kv-dtype", "fp12"}).starts_with("--dtype fp12 is not known"));
}

TEST_CASE("8 bits with one factor a tensor") {
  const auto first = [](std::initializer_list<const char*> line) {
    return parse(line).problems[0].problem;
  };
  CHECK(!first({"--dtype", "e4m3"}).one_factor);
  CHECK(to_string(first({"--dtype", "e4m3", "--one-factor"})) ==
        "B1 H8 N1024 D64 e4m3 causal one factor");
}

TEST_CASE("an option overrides --config, in any order") {
  for (const Options& options : {parse({"--seq", "100", "--config", "hdim64_seq4k"}),
                                 parse({"--config", "hdim64_seq4k", "--seq", "100"})}) {
    REQUIRE(options.problems.size() == 1);
    CHECK(options.problems[0].config == "custom");
    CHECK(to_string(options.problems[0].problem) == "B4 H32 N100 D64 fp16 causal");
  }
  const Options same = parse({"--batch", "4", "--heads", "32", "--seq", "4096"});
  CHECK(same.problems[0].config == "hdim64_seq4k");
  CHECK(parse({"--dtype", "fp32", "--full"}).problems[0].config == "tiny");
  CHECK(parse({"--seq", "5", "--seq", "7"}).problems[0].problem.seq == 7);  // the last one counts
  // Two configs that the options make the same are one problem.
  CHECK(parse({"--config", "tiny,hdim64_seq4k", "--batch", "1", "--heads", "2", "--seq", "64"})
            .problems.size() == 1);
}

TEST_CASE("sizes that follow others") {
  CHECK(one({"--seq", "300"}).kv_seq == 300);
  CHECK(one({"--seq", "300", "--kv-seq", "500"}).kv_seq == 500);
  CHECK(one({"--kv-seq", "500"}).seq == 1024);
  CHECK(one({"--heads", "6"}).kv_heads == 6);
  CHECK(one({"--heads", "6", "--kv-heads", "3"}).group() == 2);
  CHECK(one({"--head-dim", "128"}).scale == doctest::Approx(1 / std::sqrt(128.0)));
  CHECK(one({"--scale", "0.5", "--head-dim", "128"}).scale == 0.5);
  // A decode or grouped-query config keeps its own.
  CHECK(to_string(one({"--config", "decode_8k_gqa", "--batch", "8"})) ==
        "B8 H32 Hkv8 N1 Nkv8192 D128 fp16 full");
  CHECK(one({"--config", "decode_8k", "--seq", "4"}).kv_seq == 8192);
  CHECK(one({"--config", "decode_8k", "--causal"}).causal);
  // Chapter 07 asks one query unless told otherwise.
  CHECK(one({"--kv-seq", "5000"}, one_query).seq == 1);
  CHECK(one({"--kv-seq", "5000"}, one_query).kv_seq == 5000);
  CHECK(one({"--seq", "3", "--kv-seq", "5000"}, one_query).seq == 3);
}

TEST_CASE("what to run") {
  CHECK(parse({"--variant", "naive,register_tiles"}).variants ==
        std::vector<std::string>{"naive", "register_tiles"});
  CHECK(parse({"--variant", "best"}).variants == std::vector<std::string>{"best"});
  CHECK(parse({}, ladder).variants == std::vector<std::string>{"best"});
  CHECK(parse({"--iters", "50"}).iters == 50);
  CHECK(parse({"--seed", "18446744073709551615"}).seed == ~std::uint64_t{0});
  CHECK(parse({"--check"}).check_only);
  CHECK(parse({"--list"}).list);
  CHECK(parse({"--data", "outliers"}).data == Distribution::outliers);
  CHECK(parse({"--sweep", "tiles"}).sweep == Sweep::tiles);
  CHECK(parse({"--sweep", "splits"}).sweep == Sweep::splits);
  const Options twice = parse({"--sweep", "seq=16:4096"});
  CHECK(twice.sweep == Sweep::seq);
  CHECK(twice.sweep_low == 16);
  CHECK(twice.sweep_high == 4096);
  CHECK(twice.sweep_factor == 2);
  CHECK(parse({"--sweep", "seq=16:4096:x1.5"}).sweep_factor == 1.5);
  CHECK(parse({"--sweep", "seq=16:64", "--tokens", "64"}).tokens == 64);
  CHECK(parse({"--stage", "01_naive_qk,04_fused_v1"}, ladder).stages.size() == 2);
  CHECK(parse({"--compare", "a.json", "b.json"}, ladder).compare ==
        std::vector<std::string>{"a.json", "b.json"});
  CHECK(parse({"--json", "-"}).json == "-");
}

TEST_CASE("--help is not an error and is not a run") {
  const char* argv[] = {"01_naive_qk", "--help"};
  CHECK_FALSE(parse_options(2, argv, stage));
}

TEST_CASE("bad sizes") {
  CHECK(has(complaint({"--seq", "0"}), {"--seq", "whole number from 1", "not 0"}));
  CHECK(has(complaint({"--seq", "-5"}), {"--seq", "not -5"}));
  CHECK(has(complaint({"--seq", "99999999999"}), {"--seq", "2147483647", "99999999999"}));
  CHECK(has(complaint({"--batch", "1.5"}), {"--batch", "whole number", "1.5"}));
  CHECK(has(complaint({"--heads", "eight"}), {"--heads", "whole number", "eight"}));
  CHECK(has(complaint({"--kv-heads", "0"}), {"--kv-heads"}));
  CHECK(has(complaint({"--kv-seq", ""}), {"--kv-seq", "needs a value"}));
  CHECK(has(complaint({"--head-dim", "63"}), {"63", "16, 32, 64, 128"}));
  CHECK(has(complaint({"--heads", "6", "--kv-heads", "4"}), {"6", "4", "multiple"}));
  CHECK(has(complaint({"--scale", "big"}), {"--scale", "number", "big"}));
  CHECK(has(complaint({"--scale", "nan"}), {"nan", "finite"}));
  CHECK(has(complaint({"--batch", "100000", "--seq", "2000000"}), {"too large"}));
}

TEST_CASE("bad names") {
  CHECK(has(complaint({"--dtype", "int3"}), {"int3", "fp32", "fp16", "bf16"}));
  CHECK(has(complaint({"--dtype", "fp16,"}), {"--dtype", "empty name"}));
  CHECK(has(complaint({"--config", "tinny"}),
            {"tinny", "Did you mean tiny?", "hdim128_seq8k", "decode_64k_gqa"}));
  CHECK(has(complaint({"--variant", "nosuch"}), {"nosuch", "01_naive_qk", "coalesced", "best"}));
  CHECK(has(complaint({"--variant", "regster_tiles"}), {"Did you mean register_tiles?"}));
  CHECK(has(complaint({"--variant", "all,naive"}), {"--variant all", "alone"}));
  CHECK(has(complaint({"--data", "uniform"}), {"uniform", "normal", "outliers"}));
  CHECK(has(complaint({"--iters", "0"}), {"--iters", "from 1", "not 0"}));
  CHECK(has(complaint({"--iters", "abc"}), {"--iters", "not abc"}));
  CHECK(has(complaint({"--seed", "-1"}), {"--seed", "not -1"}));
}

TEST_CASE("bad sweeps") {
  CHECK(has(complaint({"--sweep", "widths"}), {"widths", "tiles", "splits", "seq=LO:HI"}));
  for (const char* range :
       {"seq=", "seq=16", "seq=16:", "seq=:16", "seq=0:16", "seq=32:16", "seq=16:32:2",
        "seq=16:32:x", "seq=16:32:x1", "seq=16:32:xinf", "seq=16:32:x2:", "seq=16:99999999999"}) {
    CHECK(has(complaint({"--sweep", range}), {range, "not a range", "seq=256:16384:x2"}));
  }
  CHECK(has(complaint({"--tokens", "64"}), {"--tokens", "--sweep seq="}));
  CHECK(has(complaint({"--tokens", "63", "--sweep", "seq=16:64"}), {"--tokens", "HI"}));
  CHECK(has(complaint({"--tokens", "64", "--sweep", "seq=16:64", "--batch", "2"}), {"--batch"}));
  CHECK(has(complaint({"--sweep", "seq=16:64", "--seq", "32"}), {"--seq", "--sweep seq="}));
}

TEST_CASE("words that are not options") {
  CHECK(has(complaint({"--sequ", "5"}), {"--sequ", "01_naive_qk", "Did you mean --seq?"}));
  CHECK(has(complaint({"--hed-dim=64"}), {"--hed-dim=64", "Did you mean --head-dim?"}));
  CHECK(has(complaint({"--zzzzzzzzzzz"}), {"--zzzzzzzzzzz", "not an option", "--help"}));
  CHECK(has(complaint({"tiny"}), {"tiny", "not an option"}));
  CHECK(has(complaint({"--stage", "01_naive_qk"}), {"--stage", "not an option"}));  // ladder's
  CHECK(has(complaint({"--seq"}), {"--seq needs a value"}));
  CHECK(has(complaint({"--json", "--check"}), {"--json needs a value"}));
  CHECK(has(complaint({"--compare", "a.json"}, ladder), {"--compare needs two files"}));
  CHECK(has(complaint({"--full=maybe"}), {"--full", "maybe"}));
}

TEST_CASE("outputs are tried before the work, and nothing is left behind") {
  const Folder folder;
  const std::string nowhere = folder / "no/such/out.json";
  CHECK(has(complaint({"--json", nowhere.c_str()}), {"--json", "out.json", "no folder"}));
  CHECK(has(complaint({"--csv", nowhere.c_str()}), {"--csv", "no folder"}));
  CHECK(has(complaint({"--json", folder.path.c_str()}), {"--json", "is a folder"}));
  CHECK(
      has(complaint({"--json", "/proc/out.json"}), {"--json /proc/out.json", "cannot be written"}));
  CHECK(has(complaint({"--json", "-", "--csv", "-"}), {"--json and --csv", "standard output"}));
  const std::string good = folder / "out.json";
  CHECK(has(complaint({"--json", good.c_str(), "--csv", good.c_str()}), {"both", "out.json"}));

  CHECK(parse({"--json", good.c_str()}).json == good);
  const std::string new_folder = folder / "new/deep";
  CHECK(parse({"--save", new_folder.c_str()}).save == new_folder);
  CHECK(folder.empty());

  // A result that is already there survives a run that never happens.
  std::ofstream(good) << "old";
  parse({"--json", good.c_str()});
  std::string text;
  std::ifstream(good) >> text;
  CHECK(text == "old");
  const std::string below_a_file = folder / "out.json/x";
  CHECK(has(complaint({"--save", below_a_file.c_str()}), {"--save", "is not a folder"}));
  CHECK(has(complaint({"--save", "/proc/x"}), {"--save /proc/x", "cannot be used"}));
  CHECK(parse({"--json", "/dev/null"}).json == "/dev/null");
  struct stat status;
  REQUIRE(stat("/dev/null", &status) == 0);
  CHECK(S_ISCHR(status.st_mode));  // and not a file that has taken its place

  const fs::path before = fs::current_path();
  fs::current_path(folder.path);
  CHECK(parse({"--csv", "relative.csv"}).csv == "relative.csv");
  fs::current_path(before);
}

TEST_CASE("--save takes one result") {
  const Folder folder;
  const char* out = folder.path.c_str();
  CHECK(parse({"--save", out}).variants == std::vector<std::string>{"best"});
  CHECK(has(complaint({"--save", out, "--variant", "all"}), {"--save", "one variant"}));
  CHECK(has(complaint({"--save", out, "--variant", "naive,best"}), {"--save", "one variant"}));
  CHECK(has(complaint({"--save", out, "--causal", "--full"}), {"--save", "not 2 of them"}));
  CHECK(has(complaint({"--save", out, "--sweep", "tiles"}), {"--save", "--sweep"}));
  CHECK(has(complaint({"--save", out}, ladder), {"--save", "--stage"}));
}

TEST_CASE("--load: the files hold the shape") {
  const Folder folder;
  const char* in = folder.path.c_str();
  const std::string q = folder / "q.npy", k = folder / "k.npy", v = folder / "v.npy";

  CHECK(has(complaint({"--load", "/no/such/folder"}), {"--load /no/such/folder", "not a folder"}));
  CHECK(has(complaint({"--load", in}), {"q.npy", "does not exist"}));
  write_tensor(q, {2, 6, 5, 32});
  CHECK(has(complaint({"--load", in}), {"k.npy", "does not exist"}));
  write_tensor(k, {2, 3, 7, 32});

  // Scores need no V; attention does.
  const Problem p = one({"--load", in});
  CHECK(to_string(p) == "B2 H6 Hkv3 N5 Nkv7 D32 fp16 causal");
  CHECK(p.scale == doctest::Approx(1 / std::sqrt(32.0)));
  CHECK(parse({"--load", in}).problems[0].config == "custom");
  CHECK(has(complaint({"--load", in}, attention), {"v.npy", "does not exist"}));
  write_tensor(v, {2, 3, 7, 32});
  CHECK(one({"--load", in}, attention).kv_seq == 7);
  fs::remove(v);
  CHECK(one({"--load", in}, softmax).kv_seq == 7);  // two steps of three: no V either
  write_tensor(v, {2, 3, 7, 32});

  // f4 is rounded to --dtype, and an option that agrees is no contradiction.
  CHECK(one({"--load", in, "--dtype", "bf16", "--seq", "5", "--full"}).dtype == DType::bf16);
  CHECK(parse({"--load", in, "--dtype", "fp32,fp16", "--causal", "--full"}).problems.size() == 4);
  CHECK(has(complaint({"--load", in, "--seq", "6"}), {"--seq 6", "contradicts", "say 5"}));
  CHECK(has(complaint({"--load", in, "--kv-heads", "6"}), {"--kv-heads 6", "say 3"}));
  CHECK(has(complaint({"--load", in, "--head-dim", "64"}), {"--head-dim 64", "say 32"}));
  CHECK(has(complaint({"--load", in, "--config", "tiny"}), {"--config", "--load"}));
  CHECK(has(complaint({"--load", in, "--sweep", "tiles"}), {"--sweep", "--load"}));
  CHECK(has(complaint({"--load", in, "--data", "normal"}), {"--data", "--load"}));

  SUBCASE("V of another shape than K") {
    write_tensor(v, {2, 3, 8, 32});
    CHECK(has(complaint({"--load", in}, attention), {"[2, 3, 7, 32]", "[2, 3, 8, 32]", "same"}));
  }
  SUBCASE("another batch") {
    write_tensor(k, {1, 3, 7, 32});
    CHECK(has(complaint({"--load", in}), {"[2, 6, 5, 32]", "[1, 3, 7, 32]", "batch"}));
  }
  SUBCASE("another head dim") {
    write_tensor(k, {2, 3, 7, 64});
    CHECK(has(complaint({"--load", in}), {"[2, 3, 7, 64]", "head dim"}));
  }
  SUBCASE("three dimensions") {
    write_tensor(q, {6, 5, 32});
    CHECK(has(complaint({"--load", in}), {"q.npy", "[6, 5, 32]", "four dimensions"}));
  }
  SUBCASE("heads that cannot be grouped") {
    write_tensor(k, {2, 4, 7, 32});
    CHECK(has(complaint({"--load", in}), {"6", "4", "multiple"}));
  }
  SUBCASE("nothing in it") {
    write_tensor(q, {2, 6, 0, 32});
    CHECK(has(complaint({"--load", in}), {"0"}));
  }
  SUBCASE("halves are fp16 and nothing else") {
    write_tensor(q, {2, 6, 5, 32}, 2);
    CHECK(has(complaint({"--load", in}), {"all be f2 or all be f4"}));
    write_tensor(k, {2, 3, 7, 32}, 2);
    CHECK(one({"--load", in, "--dtype", "fp16"}).dtype == DType::fp16);
    CHECK(has(complaint({"--load", in, "--dtype", "bf16"}), {"--dtype bf16", "f2", "fp16"}));
  }
}
