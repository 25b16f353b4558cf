#include "models/model.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace ermoe {

void Model::allocate(const ExecContext& ctx, DType dtype) {
  arena_ = std::make_unique<ParameterArena>(*ctx.allocator, dtype, parameters_of(*this));
  allocate_constants(ctx, dtype);
  for (Buffer* b : buffers_of(*this)) b->value = Tensor::zeros(*ctx.allocator, b->shape, dtype, "buffers");
  bundle_matrices();
}

void Model::move_to(const ExecContext& ctx, DType compute, GradWrites writes) {
  const std::unique_ptr<ParameterArena> old = std::move(arena_);
  const std::vector<Parameter*> parameters = parameters_of(*this);
  std::vector<Tensor> values;
  for (Parameter* p : parameters) {
    values.push_back(std::exchange(p->value, {}));
    p->compute = {};
  }
  share_out(ctx);
  for (Parameter* p : parameters_of(*this)) p->depth = depth_of(p->name);
  arena_ = std::make_unique<ParameterArena>(*ctx.allocator, old->dtype(), compute, parameters_of(*this), writes, FactorGroup::most_elements,
                                            ctx.comm->size());
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& p = *parameters[i];
    if (p.role == Parameter::Role::derived || p.shape.numel() == 0) continue;
    const bool cut = values[i].shape() != p.shape;  // the first time
    copy(cut ? values[i].slice(p.expert_offset, p.expert_offset + p.shape[0]) : values[i], p.value);
  }
  move_constants(ctx, compute);
  for (Buffer* b : buffers_of(*this)) b->value = b->value.to(*ctx.allocator, "buffers");
  bundle_matrices();
  refresh(ctx);
}

/// Where several ranks share the experts, each keeps its part from here on.
void Model::share_out(const ExecContext& ctx) {
  if (ctx.comm->size() == 1) return;
  for (MoeLayer* layer : moe_layers()) layer->share_out(share_experts(ctx, layer->dims().all()), ctx.replica_ranks->rank() == 0);
}

/// All first matrices, then all second ones: as the arena keeps them.
void Model::bundle_matrices() {
  std::vector<FactoredMatrix> matrices;
  for (MoeLayer* layer : moe_layers())
    for (const FactoredMatrix& m : layer->experts().factored()) matrices.push_back(m);
  std::ranges::stable_sort(matrices, {}, [](const FactoredMatrix& m) { return last_part(m.w->name); });
  matrices_ = ermoe::bundle_matrices(*arena_, matrices);
}

size_t Model::largest_made_bytes() const {
  size_t most = 0;
  for (const auto& bundle : matrices_) {
    size_t bytes = 0;
    for (const FactoredMatrix& m : bundle->members()) bytes += m.w->value.bytes();
    most = std::max(most, bytes);
  }
  return most;
}

void Model::refresh(const ExecContext& ctx) {
  arena_->refresh_compute();
  refresh_derived(ctx);
}
void Model::refresh_derived(const ExecContext& ctx) {
  stale_ = false;
  for (const auto& bundle : matrices_) bundle->refresh(ctx);
  for (MoeLayer* layer : moe_layers()) layer->refresh(ctx);
  const std::vector<GatheredParameter*> apart = gathered();
  ctx.comm->start([&] {
    for (GatheredParameter* p : apart) p->gather_held(ctx);
  });
  ctx.comm->start([&] {
    for (GatheredParameter* p : apart) p->gather_all(ctx);
  });
  ctx.comm->wait();
}
void Model::pull_back(const ExecContext& ctx) {
  arena_->take_factor_gradients(*ctx.allocator);
  for (const auto& bundle : matrices_) bundle->pull_back(ctx);
  for (MoeLayer* layer : moe_layers()) layer->pull_back(ctx);
  std::vector<Parameter*> common;
  for (MoeLayer* layer : moe_layers()) {
    Parameter* const p = layer->router().common_factor();
    if (p == nullptr || p->frozen) continue;
    if (!p->has_grad) zero(p->grad);
    p->has_grad = true;
    common.push_back(p);
  }
  ctx.comm->start([&] {
    for (Parameter* p : common) ctx.comm->all_reduce(p->grad, ReduceOp::sum);
  });
  ctx.comm->wait();
  for (MoeLayer* layer : moe_layers()) layer->router().add_penalties(ctx);
}
void Model::reduce_statistics(const ExecContext& ctx) {
  ctx.comm->start([&] {
    for (MoeLayer* layer : moe_layers()) layer->router().reduce_statistics(ctx);
  });
  ctx.comm->wait();
}

/// What ranks make for their own experts and gather.
std::vector<GatheredParameter*> Model::gathered() {
  std::vector<GatheredParameter*> all;
  for (MoeLayer* layer : moe_layers())
    for (GatheredParameter* p : layer->gathered()) all.push_back(p);
  return all;
}
void Model::after_step(const ExecContext& ctx) {
  for (MoeLayer* layer : moe_layers()) layer->after_step(ctx);
}
void Model::accept_step(const ExecContext& ctx) {
  for (MoeLayer* layer : moe_layers()) layer->router().accept_step(ctx);
}
void Model::discard_step() {
  for (MoeLayer* layer : moe_layers()) layer->router().discard_step();
}

void Model::scale_learning_rates(const OptimConfig& config) {
  for (Parameter* p : arena_->parameters()) {
    const auto above = static_cast<double>(layers_above(p->name));
    p->lr_scale = static_cast<float>(std::pow(config.layer_decay, above) * (p->orthonormal ? config.factor_lr : 1));
  }
}

}  // namespace ermoe
