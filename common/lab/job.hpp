// What a lab's run is to compute, and by which rules: read from a file that common/lab/judge.py
// writes, by the program that runs the student's kernel and by the judge alike.
#pragma once

#include <cstdint>
#include <limits>
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
  int chunk = 0;  // > 0: of those, only the ones of its own chunk of so many keys, query i being at
                  // the place i + Nkv - Nq
  int prefix = 0;       // the first `prefix` keys are seen by every query, whatever else hides them
  double soft_cap = 0;  // > 0: s becomes soft_cap · tanh(s / soft_cap)
  double alibi = 0;     // > 0: head h adds -2^(-alibi (h + 1) / Hq) · distance, the distance being
                        // that of key j from the query's own, |i + Nkv - Nq - j|
  bool distance = false;  // the score is -scale · |q - k|^2 in place of scale · q · k
  double half_life = 0;   // > 0, where P is given: P_ij counts as P_ij · 2^(-distance / half_life)
  // A score that every row has beside those of its keys, and that has no V. -inf: none.
  double sink = -std::numeric_limits<double>::infinity();
};

struct Case {
  Problem problem;
  Distribution data = Distribution::normal;
  std::uint64_t seed = 7;
  bool k_transposed = false;  // K is [B, Hkv, D, Nkv] in memory
  bool v_transposed = false;  // so is V
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
