// What a lab's run is to compute, and by which rules: read from a file that common/lab/judge.py
// writes, by the program that runs the student's kernel and by the judge alike.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/data.hpp"
#include "common/problem.hpp"

namespace al::lab {

// Which keys a query sees and what becomes of a score: by default what every chapter computes. The
// gradable variants of the labs change it.
struct Rules {
  bool causal =
      false;       // on top of the problem's own mask; so all of S is there, and all of P counts
  int window = 0;  // > 0: of the keys that it sees, a query sees the last `window` only
  int prefix = 0;  // the first `prefix` keys are seen by every query, whatever else hides them
  double soft_cap = 0;  // > 0: s becomes soft_cap · tanh(s / soft_cap)
  double alibi = 0;     // > 0: head h adds -2^(-alibi (h + 1) / Hq) · distance, the distance being
                        // that of key j from the query's own, |i + Nkv - Nq - j|
};

struct Case {
  Problem problem;
  Distribution data = Distribution::normal;
  std::uint64_t seed = 7;
  bool v_transposed = false;  // V is [B, Hkv, D, Nkv] in memory
};

struct Job {
  std::vector<Case> cases;
  Rules rules;
  int block_m = 0, block_n = 0;  // the kernel's tile, where the judge may speak of it; 0: unknown
};

// Throws Error(usage) naming the file and what is wrong with it.
Job read_job(const std::string& path);

// The files of case n in the folder of a run's results.
std::string result_file(const std::string& folder, int n);  // float32 [rows, columns]
std::string lse_file(const std::string& folder, int n);     // float32 [rows]
std::string state_file(const std::string& folder, int n);   // JSON: report, counts, ms

}  // namespace al::lab
