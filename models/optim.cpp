#include "models/optim.h"

#include "models/step_times.h"

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
  return section.window(arena.offset_of(p), p.shape);
}

Optimizer::Optimizer(const ExecContext& ctx, ParameterArena& arena, const OptimConfig& config, StiefelMethod method,
                     std::optional<int64_t> together)
    : arena_(arena), method_(method), rule_{.beta1 = config.beta1, .beta2 = config.beta2, .eps = config.eps} {
  std::vector<AdamwEntry> entries = step_direct(ctx, config.weight_decay);
  const Shape factors = arena.values(Parameter::Role::factor).shape();
  const Tensor m = Tensor::zeros(*ctx.allocator, factors, arena.dtype(), "optimizer"), v = m.clone("optimizer");
  for (Parameter* p : arena.parameters()) {
    if (p->role != Parameter::Role::factor || p->frozen) continue;
    if (p->shape.numel() == 0) {
      slots_.push_back({p, 0, {}, {}});
      continue;
    }
    const Slot slot{p, 0, section_window(arena, m, *p), section_window(arena, v, *p)};
    slots_.push_back(slot);
    if (!p->orthonormal) entries.push_back(entry_of(slot, config.weight_decay));
  }
  table_ = AdamwTable(ctx, arena.dtype(), entries);
  count_factors(ctx.comm->rank() == 0);
  // A GPU steps a group at once: enough matrices of 384 columns to keep it busy, and scratch memory of some hundred MB at most. A
  // CPU takes parameter by parameter, whose scratch stays in its caches.
  make_batches(m, v, together.value_or(ctx.device.is_cuda() ? FactorGroup::most_elements : 0));
  state_ = make_step_state(ctx);
}

/// A slot's part of everything that a step of it touches.
AdamwEntry Optimizer::entry_of(const Slot& slot, double weight_decay) const {
  const Parameter& p = *slot.parameter;
  const auto part = [&](const Tensor& t) { return t.window(slot.first, slot.m.shape()); };
  return {.p = part(p.value),
          .g = part(p.grad),
          .m = slot.m,
          .v = slot.v,
          .compute = p.compute.dtype() == DType::bf16 ? part(p.compute) : Tensor(),
          .lr_scale = p.lr_scale,
          .decay = p.decay ? weight_decay : 0};
}

/// Slots for what this rank steps of the direct parameters.
std::vector<AdamwEntry> Optimizer::step_direct(const ExecContext& ctx, double weight_decay) {
  const std::vector<DirectBucket> buckets = direct_buckets(ctx, arena_);
  int64_t total = 0, done = 0;
  for (const DirectBucket& b : buckets) total += b.own_end - b.own_begin;
  const Tensor m = Tensor::zeros(*ctx.allocator, {total}, arena_.dtype(), "optimizer"), v = m.clone("optimizer");
  std::vector<AdamwEntry> entries;
  for (const DirectBucket& b : buckets) {
    for (Parameter* p : arena_.parameters()) {
      if (p->role != Parameter::Role::direct || p->frozen) continue;
      const int64_t offset = arena_.offset_of(*p);
      const int64_t end = offset + p->shape.numel();
      if (std::max(b.begin, offset) >= std::min(b.end, end)) continue;
      const int64_t begin = std::max(b.own_begin, offset), count = std::min(b.own_end, end) - begin;
      if (count <= 0) {
        slots_.push_back({p, 0, {}, {}});
        continue;
      }
      const Shape shape = count == p->shape.numel() ? p->shape : Shape{count};
      const int64_t at = done + begin - b.own_begin;
      slots_.push_back({p, begin - offset, m.window(at, shape), v.window(at, shape)});
      entries.push_back(entry_of(slots_.back(), weight_decay));
    }
    done += b.own_end - b.own_begin;
    if (b.own_begin == b.own_end) continue;
    const Tensor gradients = arena_.grads(Parameter::Role::direct);
    if (ctx.comm->size() > 1) direct_gradients_.push_back(b.own_of(gradients));
  }
  if (ctx.comm->size() == 1) direct_gradients_.push_back(arena_.grads(Parameter::Role::direct));
  return entries;
}

/// Which gradients of factors count for the norm here: those of the own experts, and with `common` those that all ranks have alike.
void Optimizer::count_factors(bool common) {
  const auto counts = [&](const Parameter* p) { return p->expert_sharded || common; };
  const Tensor section = arena_.grads(Parameter::Role::factor);
  const auto place = [&](const Parameter* p) { return (p->grad.raw() - section.raw()) / static_cast<int64_t>(size_of(arena_.dtype())); };
  int64_t begin = -1, end = -1;
  const auto close = [&] {
    if (begin >= 0) direct_gradients_.push_back(section.window(begin, {end - begin}));
    begin = -1;
  };
  for (const Parameter* p : arena_.parameters()) {
    if (p->role != Parameter::Role::factor || p->orthonormal || p->shape.numel() == 0) continue;
    if (!counts(p)) {
      close();
      continue;
    }
    if (begin < 0) begin = place(p);
    end = place(p) + p->shape.numel();
  }
  close();
  for (const FactorGroup& group : arena_.factor_groups()) {
    for (int64_t first = 0; const Parameter* p : group.members) {
      const int64_t count = p->shape.numel();
      Counted* const last = factor_gradients_.empty() ? nullptr : &factor_gradients_.back();
      const bool joins = last != nullptr && last->group == &group && last->first + last->count == first;
      if (counts(p) && joins) last->count += count;
      if (counts(p) && !joins) factor_gradients_.push_back({&group, first, count});
      first += count;
    }
  }
}

void Optimizer::judge(const ExecContext& ctx, double clip, const Tensor& faults) {
  std::vector<Tensor> gradients = direct_gradients_;
  for (const Counted& part : factor_gradients_) gradients.push_back(part.group->grad.window(part.first, {part.count}));
  judge_step(ctx, rule_, clip, gradients, faults, state_);
}

void Optimizer::step(const ExecContext& ctx, double lr, double grad_scale) {
  accept_step(ctx, rule_, lr, grad_scale, state_);
  step(ctx);
}

void Optimizer::step(const ExecContext& ctx) {
  orthogonal_seconds_ = 0;
  for (const Batch& batch : batches_) step_orthonormal(ctx, batch);
  table_.step(ctx, rule_, state_);
}

/// Values, moments and twins of factors are laid out alike, each in a section of its own; gradients within their group.
void Optimizer::make_batches(const Tensor& m, const Tensor& v, int64_t most_elements) {
  struct Run {
    const FactorGroup* group;
    int64_t first, at, count, rows, cols;  // first: element of the section; at: of the group
    double lr_scale;
    int64_t elements() const { return count * rows * cols; }
  };
  const Tensor values = arena_.values(Parameter::Role::factor);
  std::vector<Run> runs;
  for (const FactorGroup& group : arena_.factor_groups()) {
    int64_t at = 0;
    for (const Parameter* p : group.members) {
      const int64_t rows = p->shape[-2], cols = p->shape[-1];
      const Run own{&group, arena_.offset_of(*p), at, p->shape.numel() / (rows * cols), rows, cols, p->lr_scale};
      at += own.elements();
      if (p->frozen) continue;
      Run* const last = runs.empty() || runs.back().group != &group ? nullptr : &runs.back();
      const bool fits = last != nullptr && last->lr_scale == own.lr_scale && last->at + last->elements() == own.at &&
                        last->elements() + own.elements() <= most_elements;
      if (fits)
        last->count += own.count;
      else
        runs.push_back(own);
    }
  }
  for (const Run& run : runs) {
    const auto part = [&](const Tensor& section) { return section.window(run.first, {run.count, run.rows, run.cols}); };
    batches_.push_back({.value = part(values),
                        .m = part(m),
                        .v = part(v),
                        .twin = arena_.twins().defined() ? part(arena_.twins()) : Tensor(),
                        .group = run.group,
                        .at = run.at,
                        .lr_scale = run.lr_scale});
  }
}

size_t Optimizer::largest_batch_bytes() const {
  size_t most = 0;
  for (const Batch& batch : batches_) most = std::max(most, batch.value.bytes());
  return most;
}

/// The rate is in the direction, since the host need not know it.
void Optimizer::step_orthonormal(const ExecContext& ctx, const Batch& batch) {
  const DType dtype = direction_dtype(ctx, batch.value, method_, batch.twin);
  const Tensor direction = ctx.empty(batch.value.shape(), dtype, "orthogonal step");
  adam_direction(ctx, rule_, state_, batch.lr_scale, batch.grad(), batch.m, batch.v, direction);
  Stopwatch watch;
  stiefel_step(ctx, batch.value, direction, 1, method_, batch.twin);
  orthogonal_seconds_ += watch.lap();
}

void Optimizer::set_steps(int64_t steps) {
  const StepState state{.steps = steps};
  state_.allocator().source().upload(state_.raw(), &state, sizeof state);
}

void Optimizer::visit_state(const std::function<void(const std::string&, const Tensor&)>& fn) const {
  for (const Slot& slot : slots_) {
    if (!slot.m.defined()) continue;
    fn(slot.parameter->name + ".m", slot.m);
    fn(slot.parameter->name + ".v", slot.v);
  }
}

MovingAverage::MovingAverage(const ExecContext&, ParameterArena& arena, double decay) : arena_(arena), decay_(decay) {
  direct_ = arena.values(Parameter::Role::direct).clone("averaged weights");
  factor_ = arena.values(Parameter::Role::factor).clone("averaged weights");
}

void MovingAverage::update(const ExecContext& ctx, const Tensor& state) {
  moving_average(ctx, decay_, state, arena_.values(Parameter::Role::direct), direct_);
  moving_average(ctx, decay_, state, arena_.values(Parameter::Role::factor), factor_);
}

void MovingAverage::visit(const std::function<void(const Parameter&, const Tensor&)>& fn) const {
  for (const Parameter* p : arena_.parameters()) {
    if (p->role == Parameter::Role::derived) continue;
    fn(*p, section_window(arena_, p->role == Parameter::Role::direct ? direct_ : factor_, *p));
  }
}

}  // namespace ermoe
