// Who stands out in a row of the log: the rank that the others wait for, the expert that most tokens go to.
#pragma once

#include <cstdint>
#include <span>

namespace ermoe {

/// Of some layers' routing, as a row of the log says it: the layer that is most uneven by either measure.
struct StepLoad {
  double max_over_mean = 0;         // tokens of the most loaded expert over the mean of its layer's
  int64_t block = -1, expert = -1;  // which one that is; -1: nothing was routed
  double gini = 0;                  // the largest of a layer, which may be another

  /// `tokens` of each scored expert of block `of`.
  void add(int64_t of, std::span<const double> tokens);
};

struct SlowestRank {
  int64_t rank = 0;
  double over_mean = 1;  // its seconds over the mean of all ranks'
};

/// `seconds` that each rank, at least one, worked by itself. Of equals the first; where nobody worked, rank 0.
SlowestRank slowest_rank(std::span<const double> seconds);

}  // namespace ermoe
