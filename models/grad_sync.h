// Adds up gradients over ranks while the backward pass still runs: when it has come past a block, what that block and those behind it
// need is complete and begins to travel. Each rank gets the sums of what it steps: its part of each bucket of direct parameters, and the
// matrices of its own experts. Read first: models/direct_buckets.h, models/gathered_parameter.h.
#pragma once

#include "models/direct_buckets.h"
#include "models/model.h"

#include <vector>

namespace ermoe {

class GradSync {
 public:
  /// `model` has its arena already, and must outlive this.
  GradSync(const ExecContext& ctx, Model& model);

  /// A new step. What the last one left on its way is waited for.
  void begin(const ExecContext& ctx);
  /// The gradients of everything from `depth` on are complete.
  void ready(const ExecContext& ctx, int64_t depth);
  /// All gradients are; the sums are there for what is queued from now on.
  void finish(const ExecContext& ctx);
  /// After the step: everybody's values of direct parameters, which each rank has stepped its own part of, and their bf16 copies.
  void gather_values(const ExecContext& ctx);

 private:
  Model& model_;
  std::vector<DirectBucket> buckets_;
  int64_t reached_ = 0;  // what is at this depth or deeper travels already
};

}  // namespace ermoe
