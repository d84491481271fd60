#include "common/lab/job.hpp"

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/error.hpp"

namespace al::lab {
namespace {

using Json = nlohmann::json;

Operation parse_operation(const std::string& name) {
  for (const Operation operation : kOperations) {
    if (name == to_string(operation)) return operation;
  }
  throw usage_error("'" + name +
                    "' is no operation: scores, softmax, probabilities, pv, attention.");
}

Case parse_case(const Json& json) {
  Case c;
  Problem& p = c.problem;
  p.operation = parse_operation(json.value("operation", "attention"));
  p.batch = json.value("batch", 1);
  p.heads = json.value("heads", 1);
  p.kv_heads = json.value("kv_heads", p.heads);
  p.seq = json.value("seq", 64);
  p.kv_seq = json.value("kv_seq", p.seq);
  p.head_dim = json.value("head_dim", 64);
  p.dtype = parse_dtype(json.value("dtype", "fp32"));
  if (json.contains("kv_dtype")) p.kv_dtype = parse_dtype(json["kv_dtype"]);
  p.causal = json.value("causal", false);
  p.scale = json.value("scale", 1 / std::sqrt(double(p.head_dim)));
  p.fp32_scores = json.value("fp32_scores", false);
  p.kv_len = json.value("kv_len", std::vector<int>{});
  p.page_size = json.value("page_size", 0);
  validate(p);
  if (json.value("data", "normal") == "outliers") c.data = Distribution::outliers;
  c.seed = json.value("seed", c.seed);
  c.k_transposed = json.value("k_transposed", false);
  c.v_transposed = json.value("v_transposed", false);
  return c;
}

}  // namespace

Job read_job(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw usage_error("The job " + path + " cannot be read.");
  try {
    const Json json = Json::parse(file);
    Job job;
    for (const Json& one : json.at("cases")) job.cases.push_back(parse_case(one));
    const Json rules = json.value("rules", Json::object());
    job.rules.causal = rules.value("causal", false);
    job.rules.window = rules.value("window", 0);
    job.rules.chunk = rules.value("chunk", 0);
    job.rules.prefix = rules.value("prefix", 0);
    job.rules.soft_cap = rules.value("soft_cap", 0.0);
    job.rules.alibi = rules.value("alibi", 0.0);
    job.rules.distance = rules.value("distance", false);
    job.rules.half_life = rules.value("half_life", 0.0);
    job.rules.sink = rules.value("sink", job.rules.sink);
    const std::vector<int> tile = json.value("tile", std::vector<int>{0, 0});
    job.block_m = tile.at(0);
    job.block_n = tile.at(1);
    return job;
  } catch (const std::exception& failure) {
    throw usage_error("The job " + path + " is not one: " + failure.what());
  }
}

std::string result_file(const std::string& folder, int n) {
  return folder + "/" + std::to_string(n) + "_out.npy";
}
std::string lse_file(const std::string& folder, int n) {
  return folder + "/" + std::to_string(n) + "_lse.npy";
}
std::string state_file(const std::string& folder, int n) {
  return folder + "/" + std::to_string(n) + ".json";
}

}  // namespace al::lab
