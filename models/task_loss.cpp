#include "models/task_loss.h"

#include "ops/cross_entropy.h"

#include <algorithm>

namespace ermoe {

Variable task_loss(const ExecContext& ctx, const LossConfig& config, const Variable& logits, const Tensor& targets) {
  Tensor weights;
  if (!config.class_weights.empty()) {
    weights = ctx.empty({logits.shape()[1]}, logits.dtype());
    check_input(static_cast<int64_t>(config.class_weights.size()) == logits.shape()[1], "loss.class_weights has {} values for {} classes",
                config.class_weights.size(), logits.shape()[1]);
    dispatch_float(weights.dtype(), "loss", [&](auto tag) {
      std::ranges::transform(config.class_weights, weights.data<decltype(tag)>(), [](double w) { return static_cast<decltype(tag)>(w); });
    });
  }
  return config.kind == LossKind::sigmoid ? sigmoid_cross_entropy(ctx, logits, targets, weights)
                                          : cross_entropy(ctx, logits, targets, weights);
}

}  // namespace ermoe
