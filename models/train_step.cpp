#include "models/train_step.h"

#include "autograd/tape.h"
#include "ops/adamw.h"

#include <cmath>

namespace ermoe {

double scalar_of(const Tensor& t) {
  check(t.numel() == 1, "[scalar] {} holds more than one element", t.shape().str());
  double value = 0;
  dispatch_float(t.dtype(), "scalar", [&](auto tag) { value = static_cast<double>(item<decltype(tag)>(t)); });
  return value;
}

void TrainStep::begin(int64_t micro_batches) {
  micro_batches_ = micro_batches;
  report_ = {};
  unread_.clear();
  model_.arena().begin_gradients();
}

void TrainStep::micro_batch(const ExecContext& outer, const Tensor& images, const LossFn& loss, const Tensor& allow) {
  Stopwatch watch;
  Tape tape;
  const ExecContext ctx = outer.with_tape(&tape);
  const double share = 1.0 / static_cast<double>(micro_batches_);
  ForwardPass pass;
  pass.allow = allow;
  pass.loss_weight = share / ctx.comm->size();
  const Variable value = loss(ctx, model_.forward(ctx, Variable(images), pass));
  const Tensor seed = ctx.empty(value.shape(), value.dtype(), "gradient");
  fill(seed, pass.loss_weight);
  report_.times.forward += watch.lap();
  tape.backward(ctx, value, seed);
  report_.times.backward += watch.lap();

  unread_.push_back({.loss = value.value, .extra = {}, .nonfinite = {}});
  for (const auto& [name, term] : pass.losses) unread_.back().extra.push_back(term);
  for (const RoutingRecord& route : pass.routes)
    if (route.nonfinite.defined()) unread_.back().nonfinite.emplace_back(route.block, route.nonfinite);
  report_.routes = std::move(pass.routes);
}

/// Reads what the micro-batches left in tensors. The first read waits for a GPU to finish all of them, so that it is never
/// idle between their many small kernels.
void TrainStep::read_results() {
  const double share = 1.0 / static_cast<double>(micro_batches_);
  for (const Unread& unread : unread_) {
    report_.loss += share * scalar_of(unread.loss);
    for (const Tensor& term : unread.extra) report_.extra_loss += share * scalar_of(term);
    for (const auto& [block, flag] : unread.nonfinite)
      if (report_.fault.empty() && item<int32_t>(flag) > 0)
        report_.fault = fmt::format("routing scores of blocks.{} are not finite", block);
  }
  unread_.clear();
}

void TrainStep::reduce_gradients(const ExecContext& ctx) {
  for (auto role : {Parameter::Role::direct, Parameter::Role::derived}) {
    model_.arena().end_gradients(role);
    ctx.comm->all_reduce(model_.arena().grads(role), ReduceOp::sum);
  }
  model_.pull_back(ctx);
  model_.arena().end_gradients(Parameter::Role::factor);
}

std::string TrainStep::find_fault(const ExecContext& ctx) const {
  if (!report_.fault.empty()) return report_.fault;
  if (!std::isfinite(report_.loss)) return "the loss is not finite";
  for (const Parameter* p : model_.arena().parameters())
    if (!std::isfinite(item<double>(squared_norm(ctx, p->grad)))) return fmt::format("the gradient of {} is not finite", p->name);
  return "the gradient norm is not finite";
}

/// Not 0 where any rank met a fault: all must refuse the step together.
Tensor TrainStep::faults_anywhere(const ExecContext& ctx) const {
  Tensor flag = ctx.empty({1}, DType::f32);
  fill(flag, report_.fault.empty() && std::isfinite(report_.loss) ? 0 : 1);
  ctx.comm->all_reduce(flag, ReduceOp::max);
  return flag;
}

/// The step itself, once it is known to be sound.
void TrainStep::apply(const ExecContext& ctx) {
  Stopwatch watch;
  optimizer_.step(ctx);
  report_.times.orthogonal += optimizer_.orthogonal_seconds();
  report_.times.optimizer += watch.lap() - optimizer_.orthogonal_seconds();
  model_.after_step(ctx);
  report_.times.orthogonal += watch.lap();
  model_.refresh(ctx);
  model_.accept_step(ctx);
  if (average_ != nullptr) average_->update(ctx, optimizer_.state());
  report_.times.refresh += watch.lap();
}

StepReport TrainStep::finish(const ExecContext& ctx, double lr) {
  Stopwatch watch;
  reduce_gradients(ctx);
  read_results();
  report_.times.pull_back += watch.lap();
  optimizer_.set_learning_rate(ctx, lr);
  optimizer_.judge(ctx, clip_, faults_anywhere(ctx));
  const StepState state = read_step_state(optimizer_.state());
  report_.grad_norm = state.grad_norm;
  report_.accepted = state.accepted != 0;
  report_.times.optimizer += watch.lap();
  if (report_.accepted) {
    apply(ctx);
  } else {
    report_.fault = find_fault(ctx);
    model_.discard_step();
    model_.refresh(ctx);  // the way back to the factors is spent
  }
  return std::move(report_);
}

}  // namespace ermoe
