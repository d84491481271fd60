#include "common/report/report.hpp"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

#include "common/error.hpp"
#include "common/report/columns.hpp"

using namespace al;
namespace fs = std::filesystem;

namespace {

struct Folder {
  fs::path path = fs::temp_directory_path() / ("al_report_test_" + std::to_string(getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
};

Problem problem(DType dtype, bool causal) {
  Problem p;
  p.operation = Operation::scores;
  p.batch = 4, p.heads = p.kv_heads = 32, p.seq = p.kv_seq = 4096;
  p.dtype = dtype;
  p.causal = causal;
  return p;
}

Row base_row(const std::string& variant, const Problem& p) {
  Row row;
  row.stage = "01_naive_qk";
  row.variant = variant;
  row.idea = "one idea, in a line";
  row.config = "hdim64_seq4k";
  row.problem = p;
  return row;
}

Row timed(const std::string& variant, double ms, double ratio = 0) {
  Row row = base_row(variant, problem(DType::fp32, false));
  row.time = Benchmark{{Timing::events, ms, ms * 0.98, ms * 1.03, 30, 1980, 1965}, std::nullopt};
  row.tflops = 275 / ms;
  row.gbps = 8724 / ms;
  row.limit = Limit{"FFMA TFLOP/s", 62.9, 4.37};
  row.limit_fraction = 4.37 / ms;
  row.predicted_ms = ms * 0.9;
  row.predicted_by = "shared GB/s";
  row.error = {1.2e-6, 3.4e-7, 2.5e-7, 1e-6, 0, true, ""};
  if (ratio > 0) {
    row.ratio_to_prior = ratio;
    row.prior = "01_naive_qk/before";
  }
  return row;
}

// A run on a GPU with every kind of row there is.
Results gpu_results() {
  Results results;
  results.program = "01_naive_qk";
  results.date = "2026-11-21";
  results.commit = "0123abc";
  results.device = {"cuda", "NVIDIA H200", 90, 132, 232448, 62914560, "580.159.03", "13.0"};
  results.ceilings.copy_gbps = 4280;
  results.ceilings.read_gbps = 4390.25;
  results.ceilings.shared_gbps = 33400;
  results.ceilings.ffma_tflops = 62.9;
  results.ceilings.exp_tops = 4.18;
  results.ceilings.why_absent = "tensor: there is no cuBLAS here";
  results.rows = {timed("naive", 612.5), timed("coalesced", 98.25, 6.234),
                  timed("register_tiles", 7.125, 13.79)};
  Row yardstick = timed("cublas_fp32", 7.67);
  yardstick.role = Role::yardstick;
  yardstick.time->beside = Measurement{Timing::events, 7.9, 7.8, 8.1, 40, 0, 0};
  yardstick.time->primary.timing = Timing::graph;
  Row prior = timed("best", 20);
  prior.stage = "00_before";
  prior.role = Role::prior;
  Row refused = base_row("shared_tiles", problem(DType::fp32, false));
  refused.refused = "shared_tiles keeps 320 KiB in shared memory, and this device has 227 KiB; " +
                    std::string("choose a smaller --head-dim, that is one of 16, 32, 64 or 128, ") +
                    "or another variant, of which --list shows all there are.";
  Row wrong = timed("racy", 9);
  wrong.problem = problem(DType::bf16, true);
  wrong.time.reset();
  wrong.tflops = wrong.gbps = wrong.limit_fraction = wrong.predicted_ms = std::nullopt;
  wrong.limit.reset();
  wrong.predicted_by.clear();
  wrong.extra_bytes = 3'500'000'000;
  wrong.error = {std::nan(""), std::numeric_limits<double>::infinity(),   std::nan(""), 1e-6, 0,
                 false,        "S[0, 3, 17, 5] is nan and should be 0.25"};
  results.rows.insert(results.rows.end(), {yardstick, prior, refused, wrong});
  return results;
}

Results emulator_results() {
  Results results;
  results.program = "ladder";
  results.date = "2026-11-21";
  results.commit = "0123abc";
  results.device = {"emulator", "emulator", 90, 4, 232448, 0, "", "13.0"};
  results.ceilings.why_absent = "the emulator has no clock";
  for (const char* variant : {"naive", "register_tiles"}) {
    Row row = base_row(variant, problem(DType::fp16, true));
    row.error = {1e-3, 1e-4, 0.5e-3, 1e-3, 0, true, ""};
    row.counts = Counts{4'294'967'296, 2'147'483'648, 1000, 16'500, 0, 0, 0, 0, 64, 4};
    results.rows.push_back(row);
  }
  results.rows[1].counts =
      Counts{8'000'000, 4'000'000, 1000, 4'000, 500, 1'250, 1'234'567, 32, 64, 4};
  results.rows[1].stage = "02_softmax";
  return results;
}

// Problems with what is beyond the plain one.
Results cache_results() {
  Results results = emulator_results();
  results.rows[0].problem.kv_dtype = DType::e4m3;
  results.rows[0].problem.kv_len.assign(results.rows[0].problem.batch, 3);
  results.rows[1].problem.dtype = DType::e5m2;
  results.rows[1].problem.page_size = 64;
  results.rows[1].problem.one_factor = true;
  return results;
}

std::vector<std::string> lines(const std::string& text) {
  std::vector<std::string> all;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) all.push_back(line);
  return all;
}

std::size_t width(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
}

// The first line that holds `part`.
std::string line_with(const std::string& text, const std::string& part) {
  for (const std::string& line : lines(text)) {
    if (line.find(part) != line.npos) return line;
  }
  return "";
}

bool has(const std::string& text, const std::string& part) {
  if (text.find(part) != text.npos) return true;
  MESSAGE("this does not say '" << part << "':\n" << text);
  return false;
}

// Characters before `part`, when `part` stands in `line`.
std::size_t column_of(const std::string& line, const std::string& part) {
  const std::size_t at = line.find(part);
  REQUIRE(at != line.npos);
  return width(line.substr(0, at));
}

}  // namespace

TEST_CASE("text table of a GPU run") {
  const std::string text = text_table(gpu_results());
  for (const std::string& line : lines(text)) CHECK(width(line) <= 140);

  CHECK(has(text, "NVIDIA H200 (sm_90, 132 SMs, driver 580.159.03, CUDA 13.0)"));
  CHECK(has(text, "copy 4280 GB/s · read 4390 GB/s · shared 33400 GB/s · FFMA 62.9 TFLOP/s"));
  CHECK(has(text, "hdim64_seq4k: B4 H32 N4096 D64 fp32 full"));
  CHECK(has(text, "hdim64_seq4k: B4 H32 N4096 D64 bf16 causal"));

  // Decimal points line up, and so do the title and its column.
  const std::string naive = line_with(text, "/naive"), tiles = line_with(text, "/register_tiles");
  CHECK(column_of(naive, "612.50 ") + 3 == column_of(tiles, "7.12 ") + 1);
  CHECK(column_of(line_with(text, "p10–p90"), " ms ") + 3 == column_of(naive, "612.50 ") + 6);
  CHECK(has(tiles, "13.79"));
  CHECK(has(tiles, "yes"));
  CHECK(has(tiles, "61 % FFMA"));
  CHECK(has(tiles, "6.41 shared"));
  CHECK(has(tiles, "0.25"));   // of the error budget
  CHECK(has(tiles, "38.60"));  // TFLOP/s
  CHECK(has(line_with(text, "variant"), "TFLOP/s"));
  CHECK(column_of(naive, "–") > column_of(naive, "612.50"));  // no prior: a dash, not a number

  CHECK(has(text, "01_naive_qk/cublas_fp32 *"));
  CHECK(has(text, "00_before/best <"));
  CHECK(has(text, "<: the rung before"));
  CHECK(has(text, "refused: shared_tiles keeps 320 KiB"));
  CHECK(has(line_with(text, "/shared_tiles"), "refused"));
  CHECK(has(text, "wrong: S[0, 3, 17, 5] is nan and should be 0.25"));
  CHECK(has(line_with(text, "racy"), "NO"));
  CHECK(has(line_with(text, "racy"), "3500"));  // MB of workspace
  CHECK(text.find("sectors") == text.npos);
  CHECK(text.find("inf") == text.npos);
}

TEST_CASE("text table of an emulator run: counts where times would be") {
  const std::string text = text_table(emulator_results());
  for (const std::string& line : lines(text)) CHECK(width(line) <= 140);
  CHECK(has(text, "the emulator has no clock"));
  const std::string title = line_with(text, "variant");
  CHECK(title.find(" ms") == title.npos);
  CHECK(has(title, "wavefronts/request"));
  const std::string naive = line_with(text, "/naive"), tiles = line_with(text, "/register_tiles");
  CHECK(has(naive, "6442.5"));  // MB loaded and stored
  CHECK(has(naive, "16.50"));   // sectors a request
  CHECK(has(naive, "–"));       // no shared memory: no wavefronts to a request
  CHECK(has(tiles, "12.0"));
  CHECK(has(tiles, "4.00"));
  CHECK(has(tiles, "2.50"));                   // wavefronts a request
  CHECK(has(tiles, "1,234,567"));              // barriers
  CHECK(text.find("yardstick") == text.npos);  // the legend explains what is there
}

// What 02 shows of one shape: its prior, its softmax, and both as a pipeline.
Results softmax_results() {
  Results results = gpu_results();
  Row prior = timed("register_tiles", 7.125), online = timed("online", 3.5),
      pipeline = timed("pipeline", 10.5);
  prior.role = Role::prior;
  for (Row* row : {&online, &pipeline}) row->stage = "02_softmax";
  online.problem.operation = Operation::softmax;
  online.tflops.reset();
  online.limit = Limit{"copy GB/s", 4280, 3.25};
  pipeline.problem.operation = Operation::probabilities;
  pipeline.prior = "01_naive_qk/register_tiles";
  pipeline.ratio_to_prior = 0.68;
  results.rows = {prior, online, pipeline};
  return results;
}

TEST_CASE("a block for each operation; a softmax is a matter of GB/s") {
  const std::string text = text_table(softmax_results());
  std::vector<std::string> headings, titles;
  for (const std::string& line : lines(text)) {
    if (line.starts_with("hdim64_seq4k: ")) headings.push_back(line);
    if (line.starts_with("  variant")) titles.push_back(line);
  }
  REQUIRE(headings.size() == 3);
  REQUIRE(titles.size() == 3);
  CHECK(has(headings[0], ", S = scale Q K^T; at least 275 GFLOP and 8,858 MB"));
  CHECK(has(headings[1], ", P = softmax(S); at least 17,180 MB"));
  CHECK(has(headings[2], ", P = softmax(scale Q K^T); at least 275 GFLOP and"));
  CHECK(has(titles[0], "TFLOP/s"));
  CHECK(has(titles[1], "GB/s"));
  CHECK(titles[1].find("FLOP") == std::string::npos);
  CHECK(has(line_with(text, "online"), "  2493  "));
  CHECK(has(line_with(text, "pipeline"), "0.68"));
}

TEST_CASE("the headings of the other operations") {
  Results results = softmax_results();
  results.rows[0].problem.operation = Operation::pv;
  results.rows[1].problem.operation = Operation::attention;
  CHECK(has(text_table(results), ", O = P V; "));
  CHECK(has(text_table(results), ", O = softmax(scale Q K^T) V; "));
}

TEST_CASE("one stage alone: its name is not repeated on every line") {
  Results results = gpu_results();
  results.rows.resize(3);
  const std::string text = text_table(results);
  CHECK(text.find("01_naive_qk/") == text.npos);
  CHECK(has(text, "  register_tiles  yes"));
}

TEST_CASE("JSON: read_results takes back what to_json wrote") {
  const Folder folder;
  const std::string path = folder.path / "results.json";
  Results pv = softmax_results();
  pv.rows[0].problem.operation = Operation::pv;
  pv.rows[1].problem.operation = Operation::attention;
  for (const Results& results :
       {gpu_results(), emulator_results(), softmax_results(), pv, cache_results()}) {
    const std::string written = to_json(results);
    write_text(path, written);
    const Results back = read_results(path);
    CHECK(to_json(back) == written);
    CHECK(text_table(back) == text_table(results));
    CHECK(to_csv(back) == to_csv(results));
  }
  CHECK(std::distance(fs::directory_iterator(folder.path), {}) == 1);  // no leftovers

  const std::string text = to_json(gpu_results());
  CHECK(text.find("nan,") == text.npos);
  CHECK(text.find("inf,") == text.npos);
  CHECK(has(text, "\"tensor_tflops\": null"));
  CHECK(has(text, "\"why_absent\": \"tensor: there is no cuBLAS here\""));
  CHECK(has(text, "\"no_ms\": \"checked without timing\""));
  CHECK(has(text, "\"max_abs\": null"));
  CHECK(has(to_json(emulator_results()), "\"no_ms\": \"the emulator has no clock\""));
  CHECK(to_json(emulator_results()).find("\"samples\"") == std::string::npos);
}

TEST_CASE("JSON: the schema accepts it, and does not accept anything") {
  if (std::system("python3 -c 0") != 0) {
    MESSAGE("SKIP: there is no python3 to validate with");
    return;
  }
  REQUIRE_MESSAGE(fs::exists("docs/results/validate.py"), "run this test in the repository's root");
  const Folder folder;
  const std::string path = folder.path / "results.json";
  const auto valid = [&](const std::string& text) {
    write_text(path, text);
    return std::system(
               ("python3 docs/results/validate.py " + path + " > " + (folder.path / "log").string())
                   .c_str()) == 0;
  };
  const auto with = [](std::string text, const std::string& from, const std::string& to) {
    const std::size_t at = text.find(from);
    REQUIRE(at != text.npos);
    return text.replace(at, from.size(), to);
  };
  for (const Results& results :
       {gpu_results(), emulator_results(), softmax_results(), cache_results()}) {
    CHECK(valid(to_json(results)));
  }

  const std::string good = to_json(gpu_results());
  CHECK_FALSE(valid(with(good, "results 1", "results 0")));
  CHECK_FALSE(valid(with(good, "\"date\"", "\"day\"")));
  CHECK_FALSE(valid(with(good, "\"median\": 612.5", "\"median\": 0")));
  CHECK_FALSE(valid(with(good, "\"median\": 612.5", "\"median\": \"612.5\"")));
  CHECK_FALSE(valid(with(good, "\"median\": 612.5", "\"median\": NaN")));
  CHECK_FALSE(valid(with(good, "\"role\": \"stage\"", "\"role\": \"rival\"")));
  CHECK_FALSE(valid(with(good, "\"why_absent\"", "\"why\"")));  // a null ceiling needs a reason
  CHECK_FALSE(valid(with(good, "\"no_ms\"", "\"nothing\"")));   // so does a null time
  CHECK_FALSE(valid(with(good, "\"problem\": 1", "\"problem\": 7")));
  CHECK_FALSE(valid(good.substr(0, good.size() / 2)));
}

TEST_CASE("JSON: files that are not results") {
  const Folder folder;
  const std::string path = folder.path / "x.json";
  const auto complaint = [&](const std::string& text) -> std::string {
    write_text(path, text);
    try {
      read_results(path);
    } catch (const Error& error) {
      CHECK(error.code == ExitCode::usage);
      CHECK(has(error.what(), path));
      CHECK(std::string(error.what()).find('\n') == std::string::npos);
      return error.what();
    }
    return "";
  };
  CHECK_THROWS_WITH_AS(read_results("/no/such.json"), doctest::Contains("/no/such.json"), Error);
  CHECK(has(complaint(""), "damaged or of another kind"));
  CHECK(has(complaint("[1, 2]"), "damaged or of another kind"));
  CHECK(has(complaint("{\"schema\": \"attention-ladder results 0\"}"), "results 0"));
  CHECK(has(complaint("{}"), "schema"));
  std::string text = to_json(gpu_results());
  CHECK(has(complaint(text.substr(0, text.size() / 2)), "damaged"));
  text.replace(text.find("\"stage\":"), 8, "\"stag\":");
  CHECK(has(complaint(text), "stage"));
}

TEST_CASE("CSV: a header, and a line of as many fields for each row") {
  const Results results = gpu_results();
  const std::vector<std::string> all = lines(to_csv(results));
  REQUIRE(all.size() == 1 + results.rows.size());
  const auto fields = [](const std::string& line) {
    bool quoted = false;
    std::size_t count = 1;
    for (char c : line) {
      if (c == '"') quoted = !quoted;
      if (c == ',' && !quoted) ++count;
    }
    return count;
  };
  for (const std::string& line : all) CHECK(fields(line) == fields(all[0]));
  CHECK(fields(lines(to_csv(emulator_results()))[2]) == fields(all[0]));
  CHECK(
      has(all[1],
          "cuda,NVIDIA H200,01_naive_qk,naive,stage,hdim64_seq4k,fp32,false,scores,4,32,32,4096"));
  CHECK(has(all[1], ",events,612.5,600.25,630.875,30,"));
  CHECK(has(all[6], ",\"shared_tiles keeps 320 KiB in shared memory, and"));
}

TEST_CASE("two results side by side") {
  Results a = gpu_results(), b = gpu_results();
  b.rows[0].time->primary.median_ms = 306.25;
  b.rows[1].problem.seq = 2048;  // another problem: no partner
  b.rows[2].variant = "new";
  const std::string text = compare_table(a, b);
  CHECK(has(line_with(text, "/naive"), "2.00"));
  CHECK(has(line_with(text, "/naive"), "306.25"));
  CHECK(has(line_with(text, "/cublas_fp32"), "1.00"));
  CHECK(text.find("coalesced") == text.npos);
  CHECK(text.find("register_tiles") == text.npos);
  CHECK(has(text, "2 row(s) are in a only. 2 row(s) are in b only."));
  CHECK(has(compare_table(a, emulator_results()), "no row in common"));
}

TEST_CASE("heat map: the best threads of each tile, the fastest tile darkest") {
  std::vector<TilePoint> tiles;
  const auto add = [&](int m, int n, int threads, const char* name) {
    TilePoint tile{m, n, threads, {}};
    tile.variant.name = name;
    tiles.push_back(tile);
  };
  add(64, 64, 128, "m64n64t128"), add(64, 64, 256, "m64n64t256"), add(64, 128, 256, "m64n128t256");
  add(128, 64, 256, "m128n64t256"), add(128, 128, 256, "m128n128t256");
  Results results = gpu_results();
  results.rows = {timed("m64n64t128", 9.5), timed("m64n64t256", 8), timed("m64n128t256", 7.25),
                  timed("m128n64t256", 31.5), timed("m128n128t256", 1)};
  results.rows[4].error.ok = false;  // fast and wrong
  const std::string text = heat_map(results, tiles);
  CHECK(has(text, "BLOCK_M \\ BLOCK_N"));
  CHECK(has(text, "▓  8.00 /256"));
  CHECK(has(text, "█  7.25 /256"));
  CHECK(has(text, "░ 31.50 /256"));
  CHECK(has(text, "none"));
  CHECK(text.find("9.50") == text.npos);
  CHECK(text.find("1.00") == text.npos);
}

TEST_CASE("columns: numbers lined up, long text wrapped") {
  using Numbers = std::vector<std::optional<double>>;
  CHECK(aligned(Numbers{1234.5, std::nullopt, 0.0, 12.345}) ==
        std::vector<std::string>{"1234.5", "     –", "   0.0", "  12.3"});
  CHECK(aligned(Numbers{0.000012, 5.0})[1] == "5.0000");  // four decimals at the most
  CHECK(aligned(Numbers{0.123, 45.678}, 2)[1] == "45.68");
  CHECK(aligned(Numbers{1e9})[0] == "1000000000");
  CHECK(with_thousands(0) == "0");
  CHECK(with_thousands(999) == "999");
  CHECK(with_thousands(-1234567) == "-1,234,567");
  std::string words;
  for (int i = 0; i < 100; ++i) words += "word ";
  for (const std::string& line : lines(wrapped(words + std::string(300, 'x'), 4))) {
    CHECK(width(line) <= static_cast<std::size_t>(line_width));
    CHECK(line.starts_with("    "));
  }
}

TEST_CASE("write_text: whole or not at all") {
  const Folder folder;
  CHECK_THROWS_WITH_AS(write_text("/no/such/folder/x", "text"), doctest::Contains("/no/such"),
                       Error);
  CHECK_THROWS_WITH_AS(write_text("/dev/full", std::string(1 << 20, 'x')),
                       doctest::Contains("No space left"), Error);
  const std::string path = folder.path / "x", link = folder.path / "link";
  fs::create_symlink(path, link);
  write_text(path, "old and long");
  write_text(link, "new");
  std::ifstream file(path);
  CHECK(std::string(std::istreambuf_iterator<char>(file), {}) == "new");
  CHECK(fs::is_symlink(link));  // the file behind it was written
}
