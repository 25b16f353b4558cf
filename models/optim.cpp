#include "models/optim.h"

#include "models/step_times.h"
#include "ops/adamw.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace ermoe {

double learning_rate(const OptimConfig& config, int64_t step, int64_t total) {
  const auto at = static_cast<double>(step), warmup = static_cast<double>(config.warmup_steps);
  if (step < config.warmup_steps) return config.lr * (at + 1) / warmup;
  const double span = static_cast<double>(std::max<int64_t>(1, total - config.warmup_steps - config.cooldown_steps));
  const double progress = std::clamp((at - warmup) / span, 0.0, 1.0);
  double lr = config.lr;
  switch (config.schedule) {
    case Schedule::cosine: lr = config.min_lr + (config.lr - config.min_lr) * 0.5 * (1 + std::cos(std::numbers::pi * progress)); break;
    case Schedule::linear: lr = config.lr + (config.min_lr - config.lr) * progress; break;
    case Schedule::constant: break;
    case Schedule::rsqrt: {
      const double w = std::max(1.0, warmup);
      lr = config.lr * std::sqrt(w / std::max(at + 1, w));
      break;
    }
  }
  const int64_t left = total - step;
  if (left <= config.cooldown_steps) {
    const double share = static_cast<double>(left - 1) / static_cast<double>(std::max<int64_t>(1, config.cooldown_steps));
    lr = config.min_lr + (lr - config.min_lr) * std::max(0.0, share);
  }
  return lr;
}

Tensor section_window(const ParameterArena& arena, const Tensor& section, const Parameter& p) {
  const auto bytes = p.value.raw() - arena.values(p.role).raw();
  return section.window(static_cast<int64_t>(bytes) / static_cast<int64_t>(size_of(arena.dtype())), p.shape);
}

Optimizer::Optimizer(const ExecContext& ctx, ParameterArena& arena, const OptimConfig& config, StiefelMethod method)
    : arena_(arena), config_(config), method_(method) {
  Tensor m[3], v[3];
  for (auto role : {Parameter::Role::direct, Parameter::Role::factor}) {
    const auto i = static_cast<size_t>(role);
    m[i] = Tensor::zeros(*ctx.allocator, arena.values(role).shape(), arena.dtype(), "optimizer");
    v[i] = Tensor::zeros(*ctx.allocator, arena.values(role).shape(), arena.dtype(), "optimizer");
  }
  for (Parameter* p : arena.parameters()) {
    if (p->role == Parameter::Role::derived || p->frozen) continue;
    const auto i = static_cast<size_t>(p->role);
    slots_.push_back({p, section_window(arena, m[i], *p), section_window(arena, v[i], *p)});
  }
}

void Optimizer::step(const ExecContext& ctx, double lr, double grad_scale) {
  steps_ += 1;
  orthogonal_seconds_ = 0;
  const auto t = static_cast<double>(steps_);
  AdamDims adam{.beta1 = config_.beta1,
                .beta2 = config_.beta2,
                .eps = config_.eps,
                .grad_scale = grad_scale,
                .correction1 = 1 - std::pow(config_.beta1, t),
                .correction2 = 1 - std::pow(config_.beta2, t)};
  for (const Slot& slot : slots_) {
    const Parameter& p = *slot.parameter;
    adam.lr = lr * static_cast<double>(p.lr_scale);
    adam.decay = p.decay ? config_.weight_decay : 0;
    if (p.shape.numel() == 0) continue;
    if (p.orthonormal)
      step_orthonormal(ctx, slot, adam);
    else
      adamw_step(ctx, adam, p.value, p.grad, slot.m, slot.v);
  }
}

void Optimizer::step_orthonormal(const ExecContext& ctx, const Slot& slot, const AdamDims& adam) {
  const Parameter& p = *slot.parameter;
  const Tensor direction = ctx.empty(p.shape, p.value.dtype(), "orthogonal step");
  adam_direction(ctx, adam, p.grad, slot.m, slot.v, direction);
  Stopwatch watch;
  stiefel_step(ctx, p.value, direction, adam.lr, method_);
  orthogonal_seconds_ += watch.lap();
}

void Optimizer::visit_state(const std::function<void(const std::string&, const Tensor&)>& fn) const {
  for (const Slot& slot : slots_) {
    fn(slot.parameter->name + ".m", slot.m);
    fn(slot.parameter->name + ".v", slot.v);
  }
}

MovingAverage::MovingAverage(const ExecContext&, ParameterArena& arena, double decay) : arena_(arena), decay_(decay) {
  direct_ = arena.values(Parameter::Role::direct).clone("averaged weights");
  factor_ = arena.values(Parameter::Role::factor).clone("averaged weights");
}

void MovingAverage::update(const ExecContext& ctx) {
  updates_ += 1;
  // A fresh average follows closely at first, so that the starting values do not linger.
  const double decay = std::min(decay_, (1.0 + static_cast<double>(updates_)) / (10.0 + static_cast<double>(updates_)));
  moving_average(ctx, decay, arena_.values(Parameter::Role::direct), direct_);
  moving_average(ctx, decay, arena_.values(Parameter::Role::factor), factor_);
}

void MovingAverage::visit(const std::function<void(const Parameter&, const Tensor&)>& fn) const {
  for (const Parameter* p : arena_.parameters()) {
    if (p->role == Parameter::Role::derived) continue;
    fn(*p, section_window(arena_, p->role == Parameter::Role::direct ? direct_ : factor_, *p));
  }
}

}  // namespace ermoe
