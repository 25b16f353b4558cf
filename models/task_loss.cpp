#include "models/task_loss.h"

#include "core/enum_names.h"
#include "core/rng.h"
#include "models/config_rules.h"
#include "ops/add.h"
#include "ops/cross_entropy.h"
#include "ops/regression_loss.h"
#include "ops/scale.h"

#include <algorithm>
#include <cmath>
#include <span>

namespace ermoe {

TaskLoss::TaskLoss(const ExecContext& ctx, const LossConfig& config, int64_t classes, DType dtype) : config_(config) {
  const bool regression = is_regression(config.kind);
  check_input(!regression || classes == outputs_of(config), "model.classes: loss.kind {} wants a model of {} output{}, not {}",
              enum_name(config.kind), outputs_of(config), outputs_of(config) == 1 ? "" : "s", classes);
  const bool scaled = regression && config.kind != LossKind::soft_labels;
  check_input(!scaled || config.target_scale > 0, "loss.target_scale: the deviation of the training targets is not known yet");
  if (config.kind == LossKind::soft_labels) bins_ = parse_bins(config.bins);
  const auto put = [&](const std::vector<double>& values, const char* what) {
    Tensor t;
    dispatch_float(dtype, "loss", [&](auto tag) {
      using T = decltype(tag);
      const std::vector<T> narrow(values.begin(), values.end());
      t = Tensor::from<T>(*ctx.allocator, {std::ssize(narrow)}, std::span(narrow), what);
    });
    return t;
  };
  if (scaled && (config.target_mean != 0 || config.target_scale != 1))
    offset_ = put({-config.target_mean / config.target_scale}, "target mean");
  if (config.class_weights.empty()) return;
  check_input(static_cast<int64_t>(config.class_weights.size()) == classes, "loss.class_weights has {} values for {} classes",
              config.class_weights.size(), classes);
  class_weights_ = put(config.class_weights, "class weights");
}

Tensor TaskLoss::standardised(const ExecContext& ctx, const Tensor& targets) const {
  if (!offset_.defined()) return targets;
  const ExecContext plain = ctx.with_tape(nullptr);
  return add_bias(plain, scale(plain, Variable(targets), 1 / config_.target_scale), Variable(offset_)).value;
}

Variable TaskLoss::operator()(const ExecContext& ctx, const Variable& logits, const Tensor& targets) const {
  switch (config_.kind) {
    case LossKind::cross_entropy: return cross_entropy(ctx, logits, targets, class_weights_);
    case LossKind::sigmoid: return sigmoid_cross_entropy(ctx, logits, targets, class_weights_);
    case LossKind::l1: return l1_loss(ctx, logits, standardised(ctx, targets));
    case LossKind::l2: return l2_loss(ctx, logits, standardised(ctx, targets));
    case LossKind::huber: return huber_loss(ctx, logits, standardised(ctx, targets), config_.delta / config_.target_scale);
    case LossKind::soft_labels: return kl_loss(ctx, logits, bin_targets(ctx, targets, bins_, config_.sigma));
  }
  fail("[task_loss] kind {}", static_cast<int>(config_.kind));
}

Variable task_loss(const ExecContext& ctx, const LossConfig& config, const Variable& logits, const Tensor& targets) {
  return TaskLoss(ctx, config, logits.shape()[1], targets.dtype())(ctx, logits, targets);
}

namespace {

/// Σ softmax(logits) · middle over the bins.
template <typename T>
double expectation(const Bins& bins, const T* logits) {
  const double largest = static_cast<double>(*std::max_element(logits, logits + bins.count));
  double total = 0, sum = 0;
  for (int64_t k = 0; k < bins.count; ++k) {
    const double p = std::exp(static_cast<double>(logits[k]) - largest);
    total += p;
    sum += p * bins.middle(k);
  }
  return sum / total;
}

}  // namespace

std::vector<double> predicted_numbers(const LossConfig& config, const Tensor& outputs) {
  const Shape& s = outputs.shape();
  check(is_regression(config.kind) && s.rank() == 2 && s[1] == outputs_of(config), "[predicted_numbers] outputs {} of loss.kind {}",
        s.str(), enum_name(config.kind));
  const Bins bins = config.kind == LossKind::soft_labels ? parse_bins(config.bins) : Bins{};
  std::vector<double> numbers;
  dispatch_float(outputs.dtype(), "predicted_numbers", [&](auto tag) {
    const auto* at = outputs.data<decltype(tag)>();
    for (int64_t b = 0; b < s[0]; ++b, at += s[1])
      numbers.push_back(config.kind == LossKind::soft_labels ? expectation(bins, at)
                                                             : config.target_mean + config.target_scale * static_cast<double>(*at));
  });
  return numbers;
}

void fit_targets(LossConfig& config, std::span<const double> targets) {
  check(is_regression(config.kind), "[fit_targets] loss.kind {} has no numbers", enum_name(config.kind));
  check_input(!targets.empty(), "there are no training targets to learn from");
  if (config.kind == LossKind::soft_labels) {
    const Bins bins = parse_bins(config.bins);
    for (const double y : targets)
      check_input(y >= bins.low && y <= bins.high(), "loss.bins: {} leaves out a training target of {}", config.bins, y);
    return;
  }
  if (config.target_scale > 0) return;
  const auto n = static_cast<double>(targets.size());
  double mean = 0, variance = 0;
  for (const double y : targets) mean += y / n;
  for (const double y : targets) variance += (y - mean) * (y - mean) / n;
  config.target_mean = mean;
  config.target_scale = variance > 0 ? std::sqrt(variance) : 1;
}

Tensor made_targets(const ExecContext& host, const LossConfig& config, int64_t classes, int64_t images) {
  const RngKey key{8};
  const bool numbers = is_regression(config.kind);
  const Tensor targets = host.empty({images, numbers ? 1 : classes}, DType::f32, "batch");
  zero(targets);
  for (int64_t i = 0; i < images; ++i) {
    const auto image = static_cast<uint64_t>(i);
    if (numbers)
      targets.data<float>()[i] = static_cast<float>(config.target_mean + config.target_scale * normal(key, image));
    else
      targets.data<float>()[i * classes + static_cast<int64_t>(uniform_int(key, image, static_cast<uint64_t>(classes)))] = 1;
  }
  return targets;
}

}  // namespace ermoe
