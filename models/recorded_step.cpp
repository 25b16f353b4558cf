#include "models/recorded_step.h"

#include "core/gather.h"

#include <utility>

namespace ermoe {
namespace {

bool same_form(const Tensor& a, const Tensor& b) {
  if (!a.defined() || !b.defined()) return a.defined() == b.defined();
  return a.shape() == b.shape() && a.dtype() == b.dtype();
}

bool same_form(const MicroBatch& a, const MicroBatch& b) {
  return same_form(a.images, b.images) && same_form(a.targets, b.targets) && same_form(a.allow, b.allow) && same_form(a.tokens, b.tokens);
}

/// The new contents of a recorded input.
void put(const Tensor& from, const Tensor& to) {
  if (from.defined() && from.raw() != to.raw()) copy(from, to);
}

}  // namespace

bool RecordedStep::fits(const ExecContext& ctx, const MicroBatch& first, int64_t micro_batches) const {
  return std::ssize(inputs_) == micro_batches && same_form(first, inputs_[0]) && rng_.value == ctx.rng.value;
}

/// Collectives must be recorded by all ranks or by none, and a rank whose memory ran out has let go of its recording.
bool RecordedStep::lost_anywhere(const ExecContext& ctx) const {
  double lost[] = {recording_ == nullptr ? 1.0 : 0.0};
  reduce_over_ranks(*ctx.comm, lost, ReduceOp::max);
  return lost[0] > 0;
}

StepReport RecordedStep::run(const ExecContext& ctx, int64_t micro_batches, const std::function<MicroBatch(int64_t)>& next, double lr,
                             const std::function<void()>& meanwhile) {
  MicroBatch first = next(0);
  if (gpu_ == nullptr || ctx.allocator->exact()) return run_ops(ctx, std::move(first), micro_batches, next, lr, meanwhile);
  if (!fits(ctx, first, micro_batches)) {
    forget();
    inputs_.assign(static_cast<size_t>(micro_batches), first);
    rng_ = ctx.rng;
    seen_ = 0;
  }
  if (seen_++ < steps_before) return run_ops(ctx, std::move(first), micro_batches, next, lr, meanwhile);
  if (lost_anywhere(ctx)) forget();
  for (int64_t i = 0; i < micro_batches; ++i) {
    MicroBatch batch = i == 0 ? std::move(first) : next(i);
    MicroBatch& input = inputs_[static_cast<size_t>(i)];
    check(same_form(batch, input), "[step] micro-batch {} has images {}, the first had {}", i, batch.images.shape().str(),
          input.images.shape().str());
    if (recording_ == nullptr) {
      input = std::move(batch);  // its memory is what recorded work will read
    } else {
      put(batch.images, input.images);
      put(batch.targets, input.targets);
      put(batch.allow, input.allow);
      put(batch.tokens, input.tokens);
    }
  }
  if (recording_ == nullptr) record(ctx);
  step_.set_learning_rate(ctx, lr);
  recording_->replay();
  if (meanwhile) meanwhile();
  StepReport report = step_.report(ctx);
  report.times = {};  // the host's share was spent when the step was recorded
  step_.conclude(report.accepted);
  return report;
}

StepReport RecordedStep::run_ops(const ExecContext& ctx, MicroBatch first, int64_t micro_batches,
                                 const std::function<MicroBatch(int64_t)>& next, double lr, const std::function<void()>& meanwhile) {
  step_.begin(ctx, micro_batches);
  for (int64_t i = 0; i < micro_batches; ++i) micro_batch(ctx, i, i == 0 ? std::move(first) : next(i));
  if (meanwhile) meanwhile();
  return step_.finish(ctx, lr);
}

void RecordedStep::micro_batch(const ExecContext& ctx, int64_t number, const MicroBatch& batch) {
  step_.micro_batch(ctx.with_rng(ctx.rng.fold(static_cast<uint64_t>(number))), batch, loss_);
}

void RecordedStep::forget() {
  if (recording_ == nullptr) return;  // or it is just being made
  recording_.reset();
  kept_.reset();
}

void RecordedStep::record(const ExecContext& ctx) {
  std::shared_ptr<const void> kept = ctx.allocator->keep_cache([this] { forget(); });
  recording_ = gpu_->record([&] {
    step_.begin(ctx, std::ssize(inputs_));
    for (int64_t i = 0; i < std::ssize(inputs_); ++i) micro_batch(ctx, i, inputs_[static_cast<size_t>(i)]);
    step_.judge(ctx);
    gpu_->record_if(step_.decision(), [&] { step_.apply(ctx); });
    step_.share(ctx);
  });
  kept_ = std::move(kept);
}

}  // namespace ermoe
