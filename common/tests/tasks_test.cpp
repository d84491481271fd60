// What a run is made of, from records of stages that compute nothing.
#include "common/tasks.hpp"

#include <doctest/doctest.h>

#include "common/report/results.hpp"

using namespace al;

namespace {

Variant variant(const char* name, Operation operation, const char* prior = nullptr) {
  return {.name = name,
          .idea = "",
          .prior = prior,
          .operation = operation,
          .refuse = [](const Problem&, const DeviceInfo&) { return std::string(); },
          .workspace = nullptr,
          .cost = nullptr,
          .launch = nullptr};
}

const Variant kFirst[] = {variant("slow", Operation::scores),
                          variant("fast", Operation::scores, "slow")};
const Variant kSecond[] = {variant("rows", Operation::softmax),
                           variant("online", Operation::softmax, "rows"),
                           variant("pipeline", Operation::probabilities, kPriorStage)};
const Variant kThird[] = {variant("tiles", Operation::pv),
                          variant("pipeline", Operation::attention, kPriorStage)};
const Variant kLibraries[] = {variant("pieces", Operation::attention),
                              variant("product", Operation::pv)};

Stage stage(const char* name, Operation operation, const Stage* prior,
            std::span<const Variant> variants) {
  return {.name = name,
          .title = "",
          .operation = operation,
          .prior = prior,
          .variants = variants,
          .best =
              [](const Problem& p, const DeviceInfo&) {
                CHECK(p.operation != Operation::softmax);  // it is asked about the whole stage
                return p.operation == Operation::probabilities ? 2 : 1;
              },
          .yardsticks = {}};
}

struct Ladder {
  Stage first = stage("first", Operation::scores, nullptr, kFirst);
  Stage second = stage("second", Operation::probabilities, &first, kSecond);
  Stage third = stage("third", Operation::attention, &second, kThird);
  Stage fourth = stage("fourth", Operation::attention, &third, kThird);
  Ladder() { third.yardsticks = kLibraries; }
};

// "key role operation < prior" of each task that is not one of the house's own yardsticks.
std::vector<std::string> tasks(std::vector<const Stage*> stages, std::vector<std::string> variants,
                               bool check_only = true) {
  Options options;
  options.variants = std::move(variants);
  options.check_only = check_only;
  std::vector<std::string> found;
  for (const Task& task : make_tasks(options, stages, {}, Problem{})) {
    if (std::string(task.variant.name).starts_with("cublas")) continue;
    std::string text = task.key() + " " + to_string(task.variant.operation);
    if (task.role == Role::prior) text += ", prior";
    if (!task.prior.empty()) text += " < " + task.prior;
    found.push_back(text);
  }
  return found;
}

using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("tasks: a stage's own table has all variants, each with its prior") {
  const Ladder ladder;
  CHECK(tasks({&ladder.first}, {"all"}) ==
        Texts{"first/slow scores", "first/fast scores < first/slow"});
  CHECK(tasks({&ladder.second}, {"all"}) ==
        Texts{"second/rows softmax", "second/online softmax < second/rows",
              "first/fast scores, prior", "second/pipeline probabilities < first/fast"});
  CHECK(tasks({&ladder.third}, {"all"}) == Texts{"third/tiles pv",
                                                 "second/pipeline probabilities, prior",
                                                 "third/pipeline attention < second/pipeline"});
}

TEST_CASE("tasks: one variant brings its prior along") {
  const Ladder ladder;
  CHECK(tasks({&ladder.second}, {"online"}) ==
        Texts{"second/rows softmax, prior", "second/online softmax < second/rows"});
  CHECK(tasks({&ladder.second}, {"rows"}) == Texts{"second/rows softmax"});
  CHECK(tasks({&ladder.second}, {"best"}) ==
        Texts{"first/fast scores, prior", "second/pipeline probabilities < first/fast"});
}

TEST_CASE("tasks: the ladder has the best of each stage, once") {
  const Ladder ladder;
  CHECK(tasks({&ladder.first, &ladder.second, &ladder.third}, {"best"}) ==
        Texts{"first/slow scores, prior", "first/fast scores < first/slow",
              "second/pipeline probabilities < first/fast",
              "third/pipeline attention < second/pipeline"});
}

TEST_CASE("tasks: yardsticks of a stage, and of those before it, for what is computed") {
  const Ladder ladder;
  const auto yardsticks = [](const Texts& all) {
    Texts found;
    for (const std::string& text : all) {
      if (text.starts_with("yardstick/")) found.push_back(text);
    }
    return found;
  };
  CHECK(yardsticks(tasks({&ladder.third}, {"all"}, true)).empty());
  CHECK(yardsticks(tasks({&ladder.second}, {"all"}, false)).empty());
  const Texts both{"yardstick/product pv", "yardstick/pieces attention"};
  CHECK(yardsticks(tasks({&ladder.third}, {"all"}, false)) == both);
  CHECK(yardsticks(tasks({&ladder.fourth}, {"all"}, false)) == both);
  CHECK(yardsticks(tasks({&ladder.third, &ladder.fourth}, {"best"}, false)) ==
        Texts{"yardstick/pieces attention"});
}

TEST_CASE("tasks: a ratio is found across operations, and only between times") {
  const auto row = [](const char* name, double ms, const char* prior) {
    Row made;
    made.stage = "stage";
    made.variant = name;
    made.prior = prior;
    if (ms > 0) made.time = Benchmark{{.median_ms = ms}, std::nullopt};
    return made;
  };
  std::vector<Row> rows{row("scores", 2, ""), row("online", 3, "stage/rows"),
                        row("pipeline", 8, "stage/scores"), row("counted", 0, "stage/scores"),
                        row("rows", 6, "stage/counted")};
  rows[0].problem.operation = Operation::scores;
  relate_to_priors(rows);
  CHECK_FALSE(rows[0].ratio_to_prior);
  CHECK(rows[1].ratio_to_prior == 2.0);  // the prior may come later
  CHECK(rows[2].ratio_to_prior == 0.25);
  CHECK(rows[2].prior == "stage/scores");
  for (int i : {3, 4}) {
    CHECK_FALSE(rows[i].ratio_to_prior);
    CHECK(rows[i].prior == "");
  }
}
