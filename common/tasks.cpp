#include "common/tasks.hpp"

#include <algorithm>

#ifndef AL_EMULATOR
#include "common/yardsticks/yardsticks.hpp"
#endif

namespace al {
namespace {

#ifdef AL_EMULATOR
std::span<const Variant> yardsticks(Operation) { return {}; }  // libraries need a GPU
#endif

const Variant& best_of(const Stage& stage, Problem p) {
  p.operation = stage.operation;
  return stage.variants[stage.best(p, device())];
}

// The variants of `stage` that `names` ("all", "best" or names) stand for.
std::vector<const Variant*> select(const Stage& stage, const std::vector<std::string>& names,
                                   const Problem& p) {
  std::vector<const Variant*> chosen;
  for (const std::string& name : names) {
    if (name == "all") {
      for (const Variant& v : stage.variants) chosen.push_back(&v);
    } else {
      chosen.push_back(name == "best" ? &best_of(stage, p) : &find_variant(stage, name));
    }
  }
  return chosen;
}

// The tasks of one stage, each after the one it is timed against. A prior that the user did not
// ask for is run too, or the ratio could not be from one run.
void add_stage(std::vector<Task>& tasks, const Stage& stage, const std::vector<std::string>& names,
               const Problem& p) {
  const auto add = [&](const Stage& s, const Variant& v, Role role, std::string prior) {
    const Task task{&s, v, role, std::move(prior)};
    const auto same = [&](const Task& t) { return t.key() == task.key(); };
    const auto found = std::find_if(tasks.begin(), tasks.end(), same);
    if (found == tasks.end()) {
      tasks.push_back(task);
    } else if (role == Role::stage) {  // it was there as a prior only; now it is asked for
      found->role = role;
      found->prior = task.prior;
    }
    return task.key();
  };
  for (const Variant* variant : select(stage, names, p)) {
    std::string prior;
    const std::string named = variant->prior ? variant->prior : "";
    if (named == kPriorStage) {
      prior = add(*stage.prior, best_of(*stage.prior, p), Role::prior, "");
    } else if (!named.empty()) {
      prior = add(stage, find_variant(stage, named), Role::prior, "");
    }
    add(stage, *variant, Role::stage, prior);
  }
}

// The libraries that compute what some task was asked to: those everybody is measured against,
// then those that the stages and the stages before them bring along.
void add_yardsticks(std::vector<Task>& tasks, std::span<const Stage* const> stages) {
  std::vector<const Stage*> all;
  for (const Stage* stage : stages) {
    for (; stage; stage = stage->prior) {
      if (std::ranges::find(all, stage) == all.end()) all.push_back(stage);
    }
  }
  for (const Operation operation : kOperations) {
    const auto asked = [&](const Task& task) {
      return task.role == Role::stage && task.variant.operation == operation;
    };
    if (std::ranges::none_of(tasks, asked)) continue;
    const auto add = [&](std::span<const Variant> variants) {
      for (const Variant& v : variants) {
        if (v.operation == operation) tasks.push_back({nullptr, v, Role::yardstick, ""});
      }
    };
    add(yardsticks(operation));
    for (const Stage* stage : all) add(stage->yardsticks);
  }
}

}  // namespace

std::vector<Task> make_tasks(const Options& options, std::span<const Stage* const> stages,
                             std::span<const TilePoint> tiles, const Problem& sizes) {
  std::vector<Task> tasks;
  for (const Stage* stage : stages) {
    if (options.sweep == Sweep::tiles) {
      for (const TilePoint& tile : tiles) tasks.push_back({stage, tile.variant, Role::stage, ""});
    } else if (options.sweep == Sweep::splits) {
      for (const Variant& split : stage->splits) tasks.push_back({stage, split, Role::stage, ""});
    } else {
      add_stage(tasks, *stage, options.variants, sizes);
    }
  }
  const bool tuning = options.sweep == Sweep::tiles || options.sweep == Sweep::splits;
  if (!options.check_only && !tuning) add_yardsticks(tasks, stages);
  return tasks;
}

}  // namespace al
