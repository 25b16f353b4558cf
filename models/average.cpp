#include "models/average.h"

#include "ops/orthogonal_step.h"

#include <exception>

namespace ermoe {

void recompute_statistics(const ExecContext& outer, Model& model, const ForEachBatch& batches) {
  ExecContext ctx = outer.with_tape(nullptr);
  ctx.mode = Mode::eval;  // no dropout: the statistics of what evaluation will see
  for (int round = 0; round < 2; ++round) {
    batches([&](const ModelInput& input) {
      ForwardPass pass;
      pass.collect_statistics = true;
      pass.allow = input.allow;
      model.run(ctx, input, pass);
    });
    for (MoeLayer* layer : model.moe_layers()) {
      layer->router().reduce_statistics(ctx);
      layer->router().replace_statistics(ctx);
    }
  }
}

std::vector<Buffer> copies_of_buffers(Model& model) {
  std::vector<Buffer> copies;
  for (const Buffer* b : buffers_of(model)) copies.push_back({b->name, b->shape, b->value.clone("averaged weights")});
  return copies;
}

AveragedWeights::AveragedWeights(const ExecContext& ctx, Model& model, const MovingAverage& average, const ForEachBatch& batches)
    : ctx_(ctx.with_tape(nullptr)), model_(model) {
  direct_ = model.arena().values(Parameter::Role::direct).clone("averaged weights");
  factor_ = model.arena().values(Parameter::Role::factor).clone("averaged weights");
  for (Buffer* b : buffers_of(model)) buffers_.push_back(b->value.clone("averaged weights"));
  average.visit([&](const Parameter& p, const Tensor& t) {
    copy(t, p.value);
    if (p.orthonormal && p.shape.numel() > 0) polar_project(ctx_, p.value);
  });
  model.after_step(ctx_);  // a shared basis and the rests beside it are projected one by one: make them fit again
  model.refresh(ctx_);
  recompute_statistics(ctx_, model, batches);
}

AveragedWeights::AveragedWeights(const ExecContext& ctx, Model& model, const MovingAverage& average)
    : AveragedWeights(ctx, model, average, [](const auto&) {}) {
  const std::vector<Buffer*> live = buffers_of(model_);
  check(live.size() == average.statistics().size(), "[average] {} statistics for {} buffers", average.statistics().size(), live.size());
  for (size_t i = 0; i < live.size(); ++i) {
    check(live[i]->name == average.statistics()[i].name, "[average] statistics of {} for {}", average.statistics()[i].name, live[i]->name);
    copy(average.statistics()[i].value, live[i]->value);
  }
}

AveragedWeights::~AveragedWeights() {
  copy(direct_, model_.arena().values(Parameter::Role::direct));
  copy(factor_, model_.arena().values(Parameter::Role::factor));
  const std::vector<Buffer*> live = buffers_of(model_);
  for (size_t i = 0; i < live.size(); ++i) copy(buffers_[i], live[i]->value);
  // Which gathers over ranks: where this one fails, the others are elsewhere, and it ends.
  if (std::uncaught_exceptions() == 0 || ctx_.comm->size() == 1) model_.refresh(ctx_);
}

}  // namespace ermoe
