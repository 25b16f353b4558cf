#include "models/grad_sync.h"

#include <limits>

namespace ermoe {

GradSync::GradSync(const ExecContext& ctx, Model& model) : model_(model), buckets_(direct_buckets(ctx, model.arena())) {}

void GradSync::begin(const ExecContext& ctx) {
  ctx.comm->wait();
  reached_ = std::numeric_limits<int64_t>::max();
}

void GradSync::ready(const ExecContext& ctx, int64_t depth) {
  const auto due = [&](int64_t d) { return d >= depth && d < reached_; };
  for (Parameter* p : model_.arena().parameters()) {
    if (p->role != Parameter::Role::direct || p->has_grad || !due(p->depth)) continue;
    zero(p->grad);  // nobody on this rank used it
    p->has_grad = true;
  }
  std::vector<GatheredParameter*> matrices;
  for (MoeLayer* layer : model_.moe_layers()) {
    if (!due(model_.depth_of_block(layer->block()))) continue;
    for (GatheredParameter* p : layer->gathered()) matrices.push_back(p);
  }
  for (GatheredParameter* p : matrices) p->end_gradient();  // queued here, so before what is started
  const Tensor gradients = model_.arena().grads(Parameter::Role::direct);
  ctx.comm->start([&] {
    for (const DirectBucket& b : buckets_)
      if (due(b.depth)) b.comm(ctx).reduce_scatter(b.all_of(gradients), b.own_of(gradients));
    for (GatheredParameter* p : matrices) p->reduce_to_held(ctx);
  });
  ctx.comm->start([&] {
    for (GatheredParameter* p : matrices) p->reduce_to_own(ctx);
  });
  reached_ = depth;
}

void GradSync::finish(const ExecContext& ctx) {
  ready(ctx, 0);
  ctx.comm->wait();
  model_.arena().end_gradients(Parameter::Role::derived);
}

void GradSync::gather_values(const ExecContext& ctx) {
  if (ctx.comm->size() == 1) return;
  const Tensor values = model_.arena().values(Parameter::Role::direct);
  ctx.comm->start([&] {
    for (const DirectBucket& b : buckets_) b.comm(ctx).all_gather(b.own_of(values), b.all_of(values));
  });
  ctx.comm->wait();
  model_.arena().refresh_direct();
}

}  // namespace ermoe
