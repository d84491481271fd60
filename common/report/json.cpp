// Results files: docs/results/schema.json describes them. read_results takes back what to_json
// wrote.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <limits>
#include <nlohmann/json.hpp>

#include "common/error.hpp"
#include "common/files.hpp"
#include "common/report/report.hpp"

namespace al {
namespace {

using json = nlohmann::ordered_json;

constexpr const char* schema_name = "attention-ladder results 1";

// Measured numbers are written with six significant digits: more would be noise, and files that
// are committed should read and diff well. NaN and infinity do not exist in JSON: null.
json measured(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return std::isfinite(value) ? json(std::strtod(text, nullptr)) : json(nullptr);
}
json measured(const std::optional<double>& value) {
  return value ? measured(*value) : json(nullptr);
}

double number(const json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}
std::optional<double> optional_number(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return std::nullopt;
  return found->get<double>();
}

const char* name_of(Role role) {
  return role == Role::stage ? "stage" : role == Role::prior ? "prior" : "yardstick";
}
Role role_of(const std::string& name) {
  return name == "stage" ? Role::stage : name == "prior" ? Role::prior : Role::yardstick;
}

// ---------------------------------------------------------------------------------------------

json problem_json(const Row& row) {
  const Problem& p = row.problem;
  json out = {{"config", row.config},   {"dtype", to_string(p.dtype)},
              {"causal", p.causal},     {"operation", to_string(p.operation)},
              {"batch", p.batch},       {"heads", p.heads},
              {"kv_heads", p.kv_heads}, {"seq", p.seq},
              {"kv_seq", p.kv_seq},     {"head_dim", p.head_dim},
              {"scale", p.scale}};
  if (p.kv_dtype) out["kv_dtype"] = to_string(*p.kv_dtype);
  if (p.one_factor) out["one_factor"] = true;
  if (!p.kv_len.empty()) out["kv_len"] = p.kv_len;
  if (p.page_size > 0) out["page_size"] = p.page_size;
  return out;
}

Problem read_problem(const json& in) {
  Problem p;
  for (const Operation operation : kOperations) {
    if (in.at("operation") == to_string(operation)) p.operation = operation;
  }
  p.dtype = parse_dtype(in.at("dtype"));
  p.causal = in.at("causal");
  p.batch = in.at("batch");
  p.heads = in.at("heads");
  p.kv_heads = in.at("kv_heads");
  p.seq = in.at("seq");
  p.kv_seq = in.at("kv_seq");
  p.head_dim = in.at("head_dim");
  p.scale = in.at("scale");
  if (in.contains("kv_dtype")) p.kv_dtype = parse_dtype(in["kv_dtype"]);
  p.one_factor = in.value("one_factor", false);
  if (in.contains("kv_len")) p.kv_len = in["kv_len"].get<std::vector<int>>();
  p.page_size = in.value("page_size", 0);
  return p;
}

// ---------------------------------------------------------------------------------------------

void put_measurement(json& out, const Measurement& m) {
  const auto clock = [](int mhz) { return mhz > 0 ? json(mhz) : json(nullptr); };
  out["timing"] = m.timing == Timing::events ? "events" : "graph";
  out["ms"] = {
      {"median", measured(m.median_ms)}, {"p10", measured(m.p10_ms)}, {"p90", measured(m.p90_ms)}};
  out["samples"] = m.samples;
  out["sm_clock_mhz"] = {{"before", clock(m.sm_clock_before_mhz)},
                         {"after", clock(m.sm_clock_after_mhz)}};
}

Measurement read_measurement(const json& in) {
  const auto clock = [&](const char* key) {
    return static_cast<int>(optional_number(in.at("sm_clock_mhz"), key).value_or(0));
  };
  Measurement m;
  m.timing = in.at("timing") == "graph" ? Timing::graph : Timing::events;
  m.median_ms = in.at("ms").at("median");
  m.p10_ms = in.at("ms").at("p10");
  m.p90_ms = in.at("ms").at("p90");
  m.samples = in.at("samples");
  m.sm_clock_before_mhz = clock("before");
  m.sm_clock_after_mhz = clock("after");
  return m;
}

// ---------------------------------------------------------------------------------------------

constexpr std::pair<const char*, std::int64_t Counts::*> count_fields[] = {
    {"global_load_bytes", &Counts::global_load_bytes},
    {"global_store_bytes", &Counts::global_store_bytes},
    {"global_requests", &Counts::global_requests},
    {"global_sectors", &Counts::global_sectors},
    {"shared_requests", &Counts::shared_requests},
    {"shared_wavefronts", &Counts::shared_wavefronts},
    {"barriers", &Counts::barriers},
    {"shuffles", &Counts::shuffles},
    {"blocks", &Counts::blocks},
    {"checked_blocks", &Counts::checked_blocks},
};

constexpr std::pair<const char*, std::optional<double> Ceilings::*> ceiling_fields[] = {
    {"copy_gbps", &Ceilings::copy_gbps},         {"read_gbps", &Ceilings::read_gbps},
    {"shared_gbps", &Ceilings::shared_gbps},     {"ffma_tflops", &Ceilings::ffma_tflops},
    {"tensor_tflops", &Ceilings::tensor_tflops},
};
// Not in every file: older ones lack them, and not every GPU has FP8.
constexpr std::pair<const char*, std::optional<double> Ceilings::*> newer_ceiling_fields[] = {
    {"mma_tflops", &Ceilings::mma_tflops},
    {"exp_tops", &Ceilings::exp_tops},
    {"tensor_fp8_tflops", &Ceilings::tensor_fp8_tflops},
};

// ---------------------------------------------------------------------------------------------

json error_json(const ErrorReport& error) {
  json out = {
      {"max_abs", measured(error.max_abs)},         {"row_rel_l2", measured(error.row_rel_l2)},
      {"scaled", measured(error.scaled)},           {"budget", measured(error.budget)},
      {"lse_max_abs", measured(error.lse_max_abs)}, {"ok", error.ok}};
  if (!error.ok) out["why"] = error.why;
  return out;
}

ErrorReport read_error(const json& in) {
  ErrorReport error;
  error.max_abs = number(in.at("max_abs"));
  error.row_rel_l2 = number(in.at("row_rel_l2"));
  error.scaled = number(in.at("scaled"));
  error.budget = number(in.at("budget"));
  error.lse_max_abs = number(in.at("lse_max_abs"));
  error.ok = in.at("ok");
  error.why = in.value("why", "");
  return error;
}

json row_json(const Row& row, std::size_t problem_index, bool emulator) {
  json out = {{"stage", row.stage},
              {"variant", row.variant},
              {"idea", row.idea},
              {"role", name_of(row.role)},
              {"problem", problem_index},
              {"config", row.config},
              {"dtype", to_string(row.problem.dtype)},
              {"causal", row.problem.causal}};
  if (!row.refused.empty()) {
    out["refused"] = row.refused;
    return out;
  }
  if (row.time) {
    put_measurement(out, row.time->primary);
    if (row.time->beside) put_measurement(out["beside"], *row.time->beside);
  } else {
    out["ms"] = nullptr;
    out["no_ms"] = emulator ? "the emulator has no clock" : "checked without timing";
  }
  if (row.tflops) out["tflops"] = measured(row.tflops);
  if (row.gbps) out["gbps"] = measured(row.gbps);
  if (row.limit) {
    out["limit"] = {{"name", row.limit->name},
                    {"value", measured(row.limit->value)},
                    {"ms", measured(row.limit->ms)},
                    {"fraction", measured(row.limit_fraction)}};
  }
  if (row.predicted_ms) {
    out["predicted_ms"] = measured(row.predicted_ms);
    out["predicted_by"] = row.predicted_by;
  }
  out["extra_bytes"] = row.extra_bytes;
  out["error"] = error_json(row.error);
  if (!row.prior.empty()) out["prior"] = row.prior;
  if (row.ratio_to_prior) out["ratio_to_prior"] = measured(row.ratio_to_prior);
  if (row.counts) {
    for (const auto& [name, field] : count_fields) out["counts"][name] = (*row.counts).*field;
  }
  return out;
}

Row read_row(const json& in, const json& problems) {
  Row row;
  row.stage = in.at("stage");
  row.variant = in.at("variant");
  row.idea = in.at("idea");
  row.role = role_of(in.at("role"));
  row.config = in.at("config");
  row.problem = read_problem(problems.at(in.at("problem").get<std::size_t>()));
  row.refused = in.value("refused", "");
  if (!row.refused.empty()) return row;

  if (!in.at("ms").is_null()) {
    row.time = Benchmark{read_measurement(in), std::nullopt};
    if (in.contains("beside")) row.time->beside = read_measurement(in["beside"]);
  }
  row.tflops = optional_number(in, "tflops");
  row.gbps = optional_number(in, "gbps");
  if (in.contains("limit")) {
    const json& limit = in["limit"];
    row.limit = Limit{limit.at("name"), limit.at("value"), limit.at("ms")};
    row.limit_fraction = optional_number(limit, "fraction");
  }
  row.predicted_ms = optional_number(in, "predicted_ms");
  row.predicted_by = in.value("predicted_by", "");
  row.extra_bytes = in.at("extra_bytes");
  row.error = read_error(in.at("error"));
  row.prior = in.value("prior", "");
  row.ratio_to_prior = optional_number(in, "ratio_to_prior");
  if (in.contains("counts")) {
    row.counts.emplace();
    for (const auto& [name, field] : count_fields) (*row.counts).*field = in["counts"].at(name);
  }
  return row;
}

}  // namespace

std::string to_json(const Results& results) {
  const DeviceInfo& device = results.device;
  json out = {{"schema", schema_name},
              {"program", results.program},
              {"date", results.date},
              {"commit", results.commit},
              {"backend", device.backend},
              {"device",
               {{"name", device.name},
                {"sm", device.sm},
                {"sms", device.sms},
                {"shared_per_block", device.shared_per_block},
                {"l2_bytes", device.l2_bytes},
                {"driver", device.driver},
                {"cuda", device.cuda}}}};
  json& ceilings = out["ceilings"];
  bool all = true;
  for (const auto& [name, field] : ceiling_fields) {
    ceilings[name] = measured(results.ceilings.*field);
    all = all && results.ceilings.*field;
  }
  for (const auto& [name, field] : newer_ceiling_fields) {
    if (results.ceilings.*field) ceilings[name] = measured(results.ceilings.*field);
  }
  if (!all) {
    const std::string& why = results.ceilings.why_absent;
    ceilings["why_absent"] = why.empty() ? "not measured" : why;
  }
  json problems = json::array(), rows = json::array();
  for (const Row& row : results.rows) {
    const json problem = problem_json(row);
    const auto found = std::find(problems.begin(), problems.end(), problem);
    const std::size_t index = found - problems.begin();
    if (found == problems.end()) problems.push_back(problem);
    rows.push_back(row_json(row, index, device.backend == "emulator"));
  }
  out["problems"] = std::move(problems);
  out["rows"] = std::move(rows);
  return out.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

Results read_results(const std::string& path) try {
  std::ifstream file(path);
  if (!file) throw usage_error("Results file " + path + " cannot be read: is the path right?");
  const json in = json::parse(file);
  if (in.at("schema") != schema_name) {
    throw usage_error("Results file " + path + " has schema " + in.at("schema").dump() +
                      "; this program reads \"" + schema_name + "\".");
  }
  Results results;
  results.program = in.at("program");
  results.date = in.at("date");
  results.commit = in.at("commit");
  const json& device = in.at("device");
  results.device.backend = in.at("backend");
  results.device.name = device.at("name");
  results.device.sm = device.at("sm");
  results.device.sms = device.at("sms");
  results.device.shared_per_block = device.at("shared_per_block");
  results.device.l2_bytes = device.at("l2_bytes");
  results.device.driver = device.at("driver");
  results.device.cuda = device.at("cuda");
  for (const auto& [name, field] : ceiling_fields) {
    results.ceilings.*field = optional_number(in.at("ceilings"), name);
  }
  for (const auto& [name, field] : newer_ceiling_fields) {
    const json& ceilings = in["ceilings"];
    if (ceilings.contains(name)) results.ceilings.*field = ceilings[name].get<double>();
  }
  results.ceilings.why_absent = in["ceilings"].value("why_absent", "");
  for (const json& row : in.at("rows")) results.rows.push_back(read_row(row, in.at("problems")));
  return results;
} catch (const json::exception& failure) {
  // The library's text begins with its own class and number: "[json.exception.…] ".
  const std::string what = failure.what();
  throw usage_error("Results file " + path +
                    " is damaged or of another kind: " + what.substr(what.find("] ") + 2) + ".");
}

void write_text(const std::string& path, const std::string& text) {
  if (path == "-") {
    std::cout << text << std::flush;
  } else {
    write_file(path, [&](std::ostream& file) { file << text; });
  }
}

}  // namespace al
