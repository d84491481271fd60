// What a run is made of: the variants asked for, those they are timed against, and the libraries
// beside them.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "common/options.hpp"
#include "common/stage.hpp"

namespace al {

// One line of the table to be.
struct Task {
  const Stage* stage;  // nullptr: a yardstick
  Variant variant;
  Role role;
  std::string prior;  // "stage/variant" of the task it is timed against; empty: none

  std::string stage_name() const { return stage ? stage->name : "yardstick"; }
  std::string key() const { return stage_name() + "/" + variant.name; }
};

// What to run on a problem of these sizes; its operation does not matter, for each task has its
// own. `tiles` are run in place of the variants with --sweep tiles, a stage's splits with --sweep
// splits. A task comes after the one it
// is timed against when they have the same operation; the yardsticks come last.
std::vector<Task> make_tasks(const Options& options, std::span<const Stage* const> stages,
                             std::span<const TilePoint> tiles, const Problem& sizes);

}  // namespace al
