// The judge of the labs: every usual mistake is found and called by its name, and what is right
// passes whatever the rules.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "common/data.hpp"
#include "common/lab/comparison.hpp"
#include "common/lab/mistakes.hpp"
#include "common/lab/oracle.hpp"
#include "common/reference.hpp"

using namespace al;
using namespace al::lab;

namespace {

constexpr int BLOCK_M = 32, BLOCK_N = 16;

Case a_case(Operation operation, bool causal = false, int seq = 20) {
  Case c;
  c.problem.operation = operation;
  c.problem.batch = 1;
  c.problem.heads = 4;
  c.problem.kv_heads = 2;
  c.problem.seq = seq;
  c.problem.kv_seq = 43;
  c.problem.head_dim = 32;
  c.problem.dtype = DType::fp32;
  c.problem.causal = causal;
  c.problem.scale = 0.2;
  return c;
}

std::vector<float> as_floats(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

Answer answer_of(const Case& c, const Rules& rules, const Mistake& mistake = {}) {
  return answer<double>(c, make_inputs(c.problem, c.data, c.seed), rules, BLOCK_N, mistake);
}

Comparison compared(const Case& c, const Rules& rules, std::vector<float> got) {
  return Comparison(c, rules, BLOCK_M, BLOCK_N, std::move(got));
}

bool equal(const std::vector<double>& a, const std::vector<double>& b) {
  for (std::size_t at = 0; at < a.size(); ++at) {
    if (std::abs(a[at] - b[at]) > 1e-12) return false;
  }
  return true;
}

// Every mistake that is possible for the case changes its answer, and its sentence is what the
// student reads; or that of another mistake that gives the same answer here.
void check_every_mistake(const Case& c, const Rules& rules) {
  const std::vector<NamedMistake> mistakes = usual_mistakes(c, rules, BLOCK_M, BLOCK_N);
  for (const NamedMistake& m : mistakes) {
    INFO(to_string(c.problem) << ": " << m.sentence);
    const std::vector<double> values = answer_of(c, rules, m.mistake).values;
    const Comparison comparison = compared(c, rules, as_floats(values));
    CHECK(!comparison.right());
    const std::string cause = comparison.cause();
    bool named = false;
    for (const NamedMistake& other : mistakes) {
      if (cause != "What you wrote equals the answer " + other.sentence + ".") continue;
      named = &other == &m || equal(values, answer_of(c, rules, other.mistake).values);
    }
    INFO(cause);
    CHECK(named);
  }
}

}  // namespace

TEST_CASE("without rules of a lab's own, the answer is that of the house's oracle") {
  for (const Operation operation : kOperations) {
    for (const bool causal : {false, true}) {
      const Case c = a_case(operation, causal);
      const HostInputs inputs = make_inputs(c.problem, c.data, c.seed);
      const ReferenceRows house = reference(c.problem, inputs, rows_to_check(c.problem, 1 << 20));
      const Answer ours = answer_of(c, {});
      double largest = 0;
      for (std::size_t at = 0; at < ours.values.size(); ++at) {
        if (ours.counts[at])
          largest = std::max(largest, std::abs(ours.values[at] - house.exact[at]));
      }
      CHECK(largest < 1e-12);
      REQUIRE(ours.lse.size() == house.exact_lse.size());
      for (std::size_t row = 0; row < ours.lse.size(); ++row) {
        CHECK(std::abs(ours.lse[row] - house.exact_lse[row]) < 1e-12);
      }
    }
  }
}

TEST_CASE("every usual mistake is called by its name") {
  for (const Operation operation : kOperations) {
    for (const bool causal : {false, true}) check_every_mistake(a_case(operation, causal), {});
  }
}

TEST_CASE("so is what a variant's rules leave room for") {
  const Rules all[] = {{.window = 9},
                       {.prefix = 11},
                       {.soft_cap = 1.5},
                       {.alibi = 4},
                       {.window = 20, .soft_cap = 2},
                       {.chunk = 12},
                       {.prefix = 5, .sink = -0.75},
                       {.sink = 1.25},
                       {.distance = true}};
  for (const Rules& rules : all) check_every_mistake(a_case(Operation::attention, true, 43), rules);
  Case c = a_case(Operation::pv, true, 43);
  c.v_transposed = true;
  check_every_mistake(c, {.window = 7});
  check_every_mistake(a_case(Operation::pv, true, 43), {.chunk = 10, .half_life = 6});
  c = a_case(Operation::scores, false, 43);
  c.k_transposed = true;
  check_every_mistake(c, {.alibi = 4});
  check_every_mistake(c, {.distance = true});
  check_every_mistake(a_case(Operation::softmax, true, 43), {.chunk = 9, .sink = 0.5});
}

TEST_CASE("what is right passes, rounded to any dtype") {
  for (const Operation operation : kOperations) {
    for (const DType dtype : {DType::fp32, DType::fp16, DType::bf16}) {
      Case c = a_case(operation, true);
      c.problem.dtype = dtype;
      std::vector<float> got = as_floats(answer_of(c, {}).values);
      for (float& x : got) x = round_to(c.problem.out_dtype(), x);
      CHECK(compared(c, {}, got).right());
    }
  }
}

TEST_CASE("the first wrong element, and what the wrong ones have in common") {
  const Case c = a_case(Operation::attention, false, 43);
  std::vector<float> got = as_floats(answer_of(c, {}).values);
  const auto at = [&](int head, int row, int column) -> float& {
    return got[(head * 43 + row) * 32 + column];
  };
  SUBCASE("one element") {
    at(2, 7, 5) += 1;
    const Comparison comparison = compared(c, {}, got);
    CHECK(comparison.wrong() == 1);
    CHECK(comparison.first().head == 2);
    CHECK(comparison.message().find("row 7, column 5 of head 2 is ") != std::string::npos);
    CHECK(comparison.pattern() == "All wrong ones are in row 7 and in column 5 and in head 2.");
  }
  SUBCASE("the last tile of rows") {
    for (int head = 0; head < 4; ++head) {
      for (int row = 32; row < 43; ++row) {
        for (int d = 0; d < 32; ++d) at(head, row, d) = 100 + d;
      }
    }
    CHECK(compared(c, {}, got).pattern() ==
          "All wrong ones are in rows 32 to 42, the last (a tile begins at 32).");
  }
  SUBCASE("two runs of rows") {
    for (int head = 0; head < 4; ++head) {
      for (const int row : {0, 1, 2, 32, 33, 34, 35}) {
        for (int d = 0; d < 32; ++d) at(head, row, d) = 100 + d;
      }
    }
    CHECK(compared(c, {}, got).pattern() == "All wrong ones are in rows 0 to 2, 32 to 35.");
  }
  SUBCASE("never written, or NaN") {
    const std::vector<float> poison =
        decode(DType::fp32, std::vector<unsigned char>(4, 0xff).data(), 1);
    for (int d = 0; d < 32; ++d) at(0, 3, d) = poison[0];
    CHECK(compared(c, {}, got).message().find("row 3, column 0 of head 0 was never written") !=
          std::string::npos);
    CHECK(compared(c, {}, got).pattern().find("None of them was ever written.") !=
          std::string::npos);
    for (int d = 0; d < 32; ++d) at(0, 3, d) = std::numeric_limits<float>::quiet_NaN();
    CHECK(compared(c, {}, got).pattern().find("32 are NaN.") != std::string::npos);
    CHECK(compared(c, {}, got).cause().find("-inf - (-inf)") != std::string::npos);
  }
  SUBCASE("a factor") {
    for (float& x : got) x *= 2;
    CHECK(compared(c, {}, got).cause() == "Every one of them is 2 times what it should be.");
  }
  SUBCASE("a factor in each row") {
    for (int row = 0; row < 172; ++row) {
      for (int d = 0; d < 32; ++d) got[row * 32 + d] *= 1 + 0.1f * static_cast<float>(row % 7 + 1);
    }
    CHECK(compared(c, {}, got).cause().find("off by one factor, another in each row") !=
          std::string::npos);
  }
}

TEST_CASE("a judge that does not know the tile looks for the other mistakes") {
  for (const bool causal : {false, true}) {
    const Case c = a_case(Operation::softmax, causal);
    const Mistake no_division{.no_division = true};
    const Comparison comparison(c, {}, 0, 0, as_floats(answer_of(c, {}, no_division).values));
    CHECK(comparison.cause().find("without the division by the row's sum l") != std::string::npos);
  }
}

TEST_CASE("the LSE") {
  const Case c = a_case(Operation::attention);
  const Answer exact = answer_of(c, {});
  const Comparison comparison = compared(c, {}, as_floats(exact.values));
  std::vector<float> lse = as_floats(exact.lse);
  CHECK(comparison.wrong_lse(lse) == "");
  lse[25] += 1;
  CHECK(comparison.wrong_lse(lse).find("the LSE of row 5 (head 1) is") != std::string::npos);
}
