#include "models/task_loss.h"

#include "ops/cross_entropy.h"

#include <span>

namespace ermoe {

TaskLoss::TaskLoss(const ExecContext& ctx, const LossConfig& config, int64_t classes, DType dtype) : kind_(config.kind) {
  if (config.class_weights.empty()) return;
  check_input(static_cast<int64_t>(config.class_weights.size()) == classes, "loss.class_weights has {} values for {} classes",
              config.class_weights.size(), classes);
  dispatch_float(dtype, "loss", [&](auto tag) {
    using T = decltype(tag);
    const std::vector<T> weights(config.class_weights.begin(), config.class_weights.end());
    class_weights_ = Tensor::from<T>(*ctx.allocator, {classes}, std::span(weights), "class weights");
  });
}

Variable TaskLoss::operator()(const ExecContext& ctx, const Variable& logits, const Tensor& targets) const {
  return kind_ == LossKind::sigmoid ? sigmoid_cross_entropy(ctx, logits, targets, class_weights_)
                                    : cross_entropy(ctx, logits, targets, class_weights_);
}

Variable task_loss(const ExecContext& ctx, const LossConfig& config, const Variable& logits, const Tensor& targets) {
  return TaskLoss(ctx, config, logits.shape()[1], targets.dtype())(ctx, logits, targets);
}

}  // namespace ermoe
