#include "tools/model_choice.h"

#include "models/config_rules.h"
#include "models/vit.h"
#include "ops/contrastive_loss.h"

namespace ermoe {

Task task_of(const RunConfig& config) {
  if (config.text.depth > 0) return Task::pairs;
  return is_regression(config.loss.kind) ? Task::numbers : Task::classes;
}

DualConfig dual_config(const RunConfig& config) { return {.image = config.model, .text = config.text, .retrieval = config.retrieval}; }

PairLossFn pair_loss(PairLoss kind) {
  if (kind == PairLoss::sigmoid)
    return [](const ExecContext& ctx, const Pairs& p) { return sigmoid_pair_loss(ctx, p.image, p.text, p.log_scale, p.bias); };
  return [](const ExecContext& ctx, const Pairs& p) { return contrastive_loss(ctx, p.image, p.text, p.log_scale); };
}

std::unique_ptr<Model> make_model(const RunConfig& config) {
  if (task_of(config) != Task::pairs) return std::make_unique<Vit>(config.model);
  return std::make_unique<DualEncoder>(dual_config(config), pair_loss(config.retrieval.loss));
}

}  // namespace ermoe
