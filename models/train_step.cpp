#include "models/train_step.h"

#include "autograd/tape.h"
#include "core/gather.h"
#include "ops/adamw.h"

#include <algorithm>
#include <cmath>

namespace ermoe {

double scalar_of(const Tensor& t) {
  check(t.numel() == 1, "[scalar] {} holds more than one element", t.shape().str());
  double value = 0;
  dispatch_float(t.dtype(), "scalar", [&](auto tag) { value = static_cast<double>(item<decltype(tag)>(t)); });
  return value;
}

void TrainStep::begin(const ExecContext& ctx, int64_t micro_batches) {
  phase_("the forward pass");
  Stopwatch watch;
  check(model_.arena().grad_writes() == GradWrites::many || grad_writes(micro_batches) == GradWrites::once,
        "[train_step] {} micro-batches for gradients that are written once", micro_batches);
  micro_batches_ = micro_batches;
  micro_batches_done_ = 0;
  report_ = {};
  sync_.begin(ctx);
  model_.arena().begin_gradients();  // first, since it gives memory back
  if (!results_.defined()) results_ = make_step_results(ctx, first_draw_);
  begin_results(ctx, results_);
  model_.refresh_derived(ctx);
  report_.times.refresh += watch.lap();
}

void TrainStep::set_draws(int64_t draws) {
  first_draw_ = draws;
  results_ = {};
}

void TrainStep::micro_batch(const ExecContext& ctx, const Tensor& images, const LossFn& loss, const Tensor& allow) {
  micro_batch(ctx, MicroBatch{.images = images, .targets = {}, .allow = allow},
              [&](const ExecContext& c, const Variable& output, const Tensor&) { return loss(c, output); });
}

void TrainStep::micro_batch(const ExecContext& outer, const MicroBatch& batch, const TargetLoss& loss) {
  phase_("the forward pass");
  Stopwatch watch;
  Tape tape;
  ExecContext ctx = outer.with_tape(&tape);
  ctx.draw = draw_number(results_);
  const double share = ctx.part.share() / static_cast<double>(micro_batches_);
  ForwardPass pass;
  pass.allow = batch.allow;
  pass.loss_weight = share;
  if (++micro_batches_done_ == micro_batches_) pass.gradients_ready = [&](int64_t depth) { sync_.ready(ctx, depth); };
  const Variable value = model_.loss(ctx, batch, loss, pass);
  const Tensor seed = ctx.empty(value.shape(), value.dtype(), "gradient");
  fill(seed, pass.loss_weight);
  report_.times.forward += watch.lap();
  phase_("the backward pass");
  tape.backward(ctx, value, seed);
  MicroBatchResults left{.share = share, .loss = value.value, .extra = {}, .nonfinite = {}};
  for (const auto& [name, term] : pass.losses) left.extra.push_back(term);
  for (const RoutingRecord& route : pass.routes)
    if (route.nonfinite.defined()) left.nonfinite.emplace_back(route.block, route.nonfinite);
  add_results(ctx, left, results_);
  report_.routes = std::move(pass.routes);
  report_.times.backward += watch.lap();
}

void TrainStep::reduce_gradients(const ExecContext& ctx) {
  sync_.finish(ctx);
  model_.pull_back(ctx);
  model_.arena().end_gradients(Parameter::Role::factor);
  model_.reduce_statistics(ctx);
}

/// What this rank can see of it. Weights first: a step that is refused leaves them as they are, so nothing gets better by itself.
TrainStep::Fault TrainStep::find_fault(const ExecContext& ctx, const StepResults& results) const {
  for (const Parameter* p : model_.arena().parameters())
    if (p->role != Parameter::Role::derived && !std::isfinite(item<double>(squared_norm(ctx, p->value))))
      return {0, fmt::format("{} itself is not finite any more; only an earlier checkpoint helps", p->name)};
  if (results.fault > 0)
    return {results.fault, fmt::format("routing scores of {} are not finite", model_.name_of_block(results.fault - 1))};
  int64_t place = model_.last_depth();
  if (!std::isfinite(results.loss)) return {place, "the loss is not finite"};
  for (const Parameter* p : model_.arena().parameters()) {
    ++place;
    if (!std::isfinite(item<double>(squared_norm(ctx, p->grad)))) return {place, fmt::format("the gradient of {} is not finite", p->name)};
  }
  return {place + 1, "the gradient norm is not finite"};
}

/// What the ranks see together, each of which has images and sums of gradients that others lack: what one process would name.
std::string TrainStep::first_fault(const ExecContext& ctx, const StepResults& results) const {
  const Fault own = find_fault(ctx, results);
  const std::vector<int64_t> places = gather_from_all(*ctx.comm, std::vector{own.place});
  const std::vector<std::string> texts = gather_texts(*ctx.comm, own.what);
  return texts[static_cast<size_t>(std::ranges::min_element(places) - places.begin())];
}

/// Not 0 where any rank met a fault: all must refuse the step together.
Tensor TrainStep::faults_anywhere(const ExecContext& ctx) const {
  Tensor flag = ctx.empty({1}, DType::f32);
  flag_faults(ctx, results_, flag);
  ctx.comm->all_reduce(flag, ReduceOp::max);
  return flag;
}

void TrainStep::judge(const ExecContext& ctx) {
  phase_("gradients over ranks");
  Stopwatch watch;
  reduce_gradients(ctx);
  report_.times.pull_back += watch.lap();
  optimizer_.judge(ctx, clip_, faults_anywhere(ctx));
  report_.times.optimizer += watch.lap();
}

void TrainStep::apply(const ExecContext& ctx) {
  phase_("the optimizer's step");
  Stopwatch watch;
  optimizer_.step(ctx);
  report_.times.orthogonal += optimizer_.orthogonal_seconds();
  report_.times.optimizer += watch.lap() - optimizer_.orthogonal_seconds();
  model_.after_step(ctx);
  report_.times.orthogonal += watch.lap();
  model_.accept_step(ctx);
  report_.times.optimizer += watch.lap();
}

void TrainStep::share(const ExecContext& ctx) {
  Stopwatch watch;
  sync_.gather_values(ctx);
  if (average_ != nullptr) average_->update(ctx, optimizer_.state());
  report_.times.optimizer += watch.lap();
}

void TrainStep::conclude(bool accepted) {
  if (accepted)
    model_.factors_changed();
  else
    model_.discard_step();
}

StepReport TrainStep::report(const ExecContext& ctx) {
  if (ctx.device.is_cuda()) phase_(on_gpu);
  Stopwatch watch;
  const StepResults results = read_step_results(results_);
  const StepState state = read_step_state(optimizer_.state());
  const double waited = watch.lap();
  report_.result_wait = waited;
  report_.loss = results.loss;
  report_.extra_loss = results.extra_loss;
  report_.grad_norm = state.grad_norm;
  report_.accepted = state.accepted != 0;
  report_.fault = report_.accepted ? "" : first_fault(ctx, results);
  report_.times.optimizer += waited + watch.lap();
  return report_;
}

StepReport TrainStep::finish(const ExecContext& ctx, double lr) {
  set_learning_rate(ctx, lr);
  judge(ctx);
  const bool accepted = report(ctx).accepted;
  if (accepted) {
    apply(ctx);
    share(ctx);
  }
  conclude(accepted);
  return std::move(report_);
}

}  // namespace ermoe
