#include "models/task_loss.h"

#include "core/enum_names.h"
#include "models/config_rules.h"
#include "ops/cross_entropy.h"
#include "ops/regression_loss.h"

#include <span>

namespace ermoe {

TaskLoss::TaskLoss(const ExecContext& ctx, const LossConfig& config, int64_t classes, DType dtype)
    : kind_(config.kind), delta_(config.delta) {
  check_input(!is_regression(kind_) || classes == 1, "model.classes: loss.kind {} wants a model of one output, not {}", enum_name(kind_),
              classes);
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
  switch (kind_) {
    case LossKind::cross_entropy: return cross_entropy(ctx, logits, targets, class_weights_);
    case LossKind::sigmoid: return sigmoid_cross_entropy(ctx, logits, targets, class_weights_);
    case LossKind::l1: return l1_loss(ctx, logits, targets);
    case LossKind::l2: return l2_loss(ctx, logits, targets);
    case LossKind::huber: return huber_loss(ctx, logits, targets, delta_);
  }
  fail("[task_loss] kind {}", static_cast<int>(kind_));
}

Variable task_loss(const ExecContext& ctx, const LossConfig& config, const Variable& logits, const Tensor& targets) {
  return TaskLoss(ctx, config, logits.shape()[1], targets.dtype())(ctx, logits, targets);
}

}  // namespace ermoe
