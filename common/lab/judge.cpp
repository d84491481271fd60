// lab_judge JOB.json FOLDER: says of each case of a run whether its result is right and, where it
// is not, which element is the first wrong one and what the mistake looks like. One JSON object to
// stdout. Holds no code of a student's.
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/error.hpp"
#include "common/lab/comparison.hpp"
#include "common/lab/job.hpp"
#include "common/npy.hpp"

namespace al::lab {
namespace {

using Json = nlohmann::json;

Json judge_case(const Job& job, const std::string& folder, int n) {
  const Case& c = job.cases[n];
  Json json = {{"name", to_string(c.problem)}, {"passed", false}};
  std::ifstream file(state_file(folder, n));
  if (!file) {
    json["missing"] = true;
    json["message"] = "The program ended before it came to this problem.";
    return json;
  }
  const Json state = Json::parse(file);
  // The student's program may have written anything here.
  if (state.contains("ms") && state["ms"].is_number()) json["ms"] = state["ms"];
  if (state.contains("counts") && state["counts"].is_object()) {
    for (const auto& [name, count] : state["counts"].items()) {
      if (count.is_number_integer()) json["counts"][name] = count;
    }
  }
  if (state.contains("report")) {
    constexpr std::size_t kLongest = 8000;
    json["report"] = json["message"] = state["report"].get<std::string>().substr(0, kLongest);
    return json;
  }
  const Comparison comparison(c, job.rules, job.block_m, job.block_n,
                              read_npy(result_file(folder, n)));
  json["passed"] = comparison.right();
  if (!comparison.right()) {
    const auto [batch, head, row, column] = comparison.first();
    json["first"] = {{"batch", batch}, {"head", head}, {"row", row}, {"column", column}};
    json["wrong"] = comparison.wrong();
    json["of"] = comparison.elements();
    json["message"] = comparison.message();
    json["where"] = comparison.pattern();
    json["cause"] = comparison.cause();
  } else if (std::filesystem::exists(lse_file(folder, n))) {
    const std::string why = comparison.wrong_lse(read_npy(lse_file(folder, n)));
    json["passed"] = why.empty();
    json["message"] = why;
  }
  return json;
}

}  // namespace
}  // namespace al::lab

int main(int argc, char** argv) {
  using namespace al::lab;
  try {
    if (argc != 3) throw al::usage_error("Usage: lab_judge JOB.json FOLDER");
    const Job job = read_job(argv[1]);
    Json cases = Json::array();
    for (int n = 0; n < static_cast<int>(job.cases.size()); ++n) {
      cases.push_back(judge_case(job, argv[2], n));
    }
    std::printf(
        "%s\n",
        Json{{"cases", cases}}.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
}
