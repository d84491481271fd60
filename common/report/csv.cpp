// One line a row, for spreadsheets and plotting; an empty field is a value that does not exist.
#include <fmt/format.h>

#include <cmath>

#include "common/report/report.hpp"

namespace al {
namespace {

// Quoted when the text holds what separates fields (RFC 4180).
std::string field(const std::string& text) {
  if (text.find_first_of(",\"\n\r") == text.npos) return text;
  std::string quoted = "\"";
  for (char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

std::string field(std::optional<double> value) {
  return value && std::isfinite(*value) ? fmt::format("{:.6g}", *value) : "";
}

}  // namespace

std::string to_csv(const Results& results) {
  std::string text =
      "backend,device,stage,variant,role,config,dtype,causal,operation,batch,heads,kv_heads,seq,kv_"
      "seq,"
      "head_dim,scale,kv_dtype,page_size,timing,median_ms,p10_ms,p90_ms,samples,tflops,gbps,limit,"
      "limit_fraction,"
      "predicted_ms,predicted_by,extra_bytes,max_abs,row_rel_l2,scaled_error,budget,ok,prior,"
      "ratio_to_prior,global_load_bytes,global_store_bytes,global_requests,global_sectors,"
      "shared_requests,shared_wavefronts,barriers,shuffles,blocks,checked_blocks,refused\n";
  for (const Row& row : results.rows) {
    const Problem& p = row.problem;
    const bool ran = row.refused.empty();
    text += fmt::format(
        "{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},{},", field(results.device.backend),
        field(results.device.name), field(row.stage), field(row.variant),
        row.role == Role::stage   ? "stage"
        : row.role == Role::prior ? "prior"
                                  : "yardstick",
        field(row.config), to_string(p.dtype), p.causal, to_string(p.operation), p.batch, p.heads,
        p.kv_heads, p.seq, p.kv_seq, p.head_dim, p.scale, to_string(p.cache_dtype()), p.page_size);
    if (row.time) {
      const Measurement& m = row.time->primary;
      text += fmt::format("{},{},{},{},{},", m.timing == Timing::events ? "events" : "graph",
                          field(m.median_ms), field(m.p10_ms), field(m.p90_ms), m.samples);
    } else {
      text += ",,,,,";
    }
    text += fmt::format("{},{},{},{},{},{},", field(row.tflops), field(row.gbps),
                        field(row.limit ? row.limit->name : ""), field(row.limit_fraction),
                        field(row.predicted_ms), field(row.predicted_by));
    if (ran) {
      const ErrorReport& e = row.error;
      text += fmt::format("{},{},{},{},{},{},", row.extra_bytes, field(e.max_abs),
                          field(e.row_rel_l2), field(e.scaled), field(e.budget), e.ok);
    } else {
      text += ",,,,,,";
    }
    text += fmt::format("{},{},", field(row.prior), field(row.ratio_to_prior));
    if (row.counts) {
      const Counts& c = *row.counts;
      text +=
          fmt::format("{},{},{},{},{},{},{},{},{},{},", c.global_load_bytes, c.global_store_bytes,
                      c.global_requests, c.global_sectors, c.shared_requests, c.shared_wavefronts,
                      c.barriers, c.shuffles, c.blocks, c.checked_blocks);
    } else {
      text += ",,,,,,,,,,";
    }
    text += field(row.refused) + "\n";
  }
  return text;
}

}  // namespace al
