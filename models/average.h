// Uses a model with its averaged weights for a while: evaluation and prediction. Averages of orthonormal factors are not
// orthonormal and the routing statistics belong to the live weights, so the first are projected and the second redone.
#pragma once

#include "models/model.h"
#include "models/optim.h"

#include <functional>
#include <vector>

namespace ermoe {

/// Calls back with training micro-batches, so that statistics can be collected from them.
using ForEachBatch = std::function<void(const std::function<void(const ModelInput&)>&)>;

/// The model's buffers, which are its routing statistics, with values of their own.
std::vector<Buffer> copies_of_buffers(Model& model);

class AveragedWeights {
 public:
  /// Puts the averages in place of the live weights, projects orthonormal factors on their polar factor, remakes what is
  /// derived, and recomputes the routing statistics over `batches` (twice: means first, then the scores they center).
  AveragedWeights(const ExecContext& ctx, Model& model, const MovingAverage& average, const ForEachBatch& batches);
  /// The same with the statistics that `average` keeps; it keeps some.
  AveragedWeights(const ExecContext& ctx, Model& model, const MovingAverage& average);
  /// Puts the live weights and statistics back.
  ~AveragedWeights();
  AveragedWeights(const AveragedWeights&) = delete;
  AveragedWeights& operator=(const AveragedWeights&) = delete;

  /// A copy of the model's statistics as they are now, for `MovingAverage::keep_statistics`.
  std::vector<Buffer> statistics() const { return copies_of_buffers(model_); }

 private:
  ExecContext ctx_;
  Model& model_;
  Tensor direct_, factor_;       // the live values
  std::vector<Tensor> buffers_;  // the live statistics
};

/// Recomputes the routing statistics of the model as it is.
void recompute_statistics(const ExecContext& ctx, Model& model, const ForEachBatch& batches);

}  // namespace ermoe
