// A small training with all that a step needs, on a CPU or a GPU: for tests that compare whole trainings bit by bit.
#pragma once

#include "models/purity.h"
#include "models/recorded_step.h"
#include "models/task_loss.h"
#include "models/vit.h"
#include "tests/gpu_bench.h"
#include "tests/models/tiny_model.h"

namespace ermoe::testing {

/// A small training with what a step needs: `Bench` is a TestBench or a GpuBench.
template <typename Bench>
class SmallTraining {
 public:
  SmallTraining(const VitConfig& config, Gpu* gpu, DType compute, bool with_recording = true, double rate = 1e-3,
                GradWrites writes = GradWrites::many)
      : model_(config), rate_(rate) {
    model_.allocate(host_.ctx, DType::f32);
    model_.init(host_.ctx, RngKey{5});
    for (Parameter* p : parameters_of(model_))  // a head of zeros would hide what comes before it
      if (p->name == "head.weight") fill_normal(p->value, 0.5, RngKey{6});
    if (gpu != nullptr) model_.move_to(bench_.ctx, compute, writes);
    optim_.lr = 1e-3;
    optimizer_.emplace(bench_.ctx, model_.arena(), optim_, stiefel_method(config.moe.orthogonality));
    average_.emplace(bench_.ctx, model_.arena(), 0.9);
    step_.emplace(bench_.ctx, model_, *optimizer_, &*average_, 1.0);
    runner_.emplace(*step_, with_recording ? gpu : nullptr,
                    [](const ExecContext& c, const Variable& y, const Tensor& targets) { return task_loss(c, {}, y, targets); });
  }

  /// Step number `number` on images of its own; a `spoilt` one has a pixel that is not a number.
  StepReport step(int64_t number, int64_t images = 4, int64_t micro_batches = 1, bool spoilt = false) {
    const auto next = [&](int64_t micro) { return batch(number, micro, images, spoilt); };
    int64_t meanwhile = 0;
    StepReport report = runner_->run(steps_.ctx, micro_batches, next, rate_, [&] { ++meanwhile; });
    EXPECT_EQ(meanwhile, 1);
    return report;
  }

  MicroBatch batch(int64_t number, int64_t micro, int64_t images, bool spoilt) {
    const RngKey key = RngKey{7}.fold(static_cast<uint64_t>(number)).fold(static_cast<uint64_t>(micro));
    const VitConfig& m = model_.config();
    const Tensor pixels = random_input(host_.ctx, {{images, m.channels, m.image_size, m.image_size}}, DType::f32, key);
    const Tensor targets = random_input(host_.ctx, {{images, m.classes}, OpInput::Fill::unit}, DType::f32, key.fold(1));
    if (spoilt) pixels.data<float>()[3] = NAN;
    return {on_device_of(bench_.ctx, pixels), on_device_of(bench_.ctx, targets), {}};
  }

  /// Before step number `number` of one micro-batch each.
  std::vector<TermPurity> measure(int64_t number) {
    runner_->forget();
    const auto loss = [](const ExecContext& c, const Variable& y, const Tensor& targets) { return task_loss(c, {}, y, targets); };
    return measure_purity(steps_.ctx, model_, batch(number, 0, 4, false), loss, number);
  }

  /// Parameters, statistics, averages and moments, on the host. Looks whether twins follow their factors.
  Snapshot state() {
    Snapshot all;
    const auto keep = [&](const std::string& name, const Tensor& t) { all[name] = on_host(bench_.ctx, t).clone(); };
    for (const Parameter* p : parameters_of(model_))
      if (p->role != Parameter::Role::derived) keep(p->name, p->value);
    for (const Parameter* p : parameters_of(model_)) {
      if (!p->twin.defined()) continue;
      keep("twin " + p->name, p->twin);
      EXPECT_EQ(to_doubles(p->twin), bf16_values(p->value)) << p->name;
    }
    for (const Buffer* b : buffers_of(model_)) keep(b->name, b->value);
    optimizer_->visit_state(keep);
    average_->visit([&](const Parameter& p, const Tensor& t) { keep("average " + p.name, t); });
    return all;
  }

  /// What the last step left, on the host.
  Snapshot gradients() {
    Snapshot all;
    for (const Parameter* p : parameters_of(model_)) all[p->name] = on_host(bench_.ctx, p->grad).clone();
    return all;
  }

  /// Evaluation between steps takes memory of its own and makes matrices anew.
  void evaluate() {
    ExecContext ctx = bench_.ctx;
    ctx.mode = Mode::eval;
    const VitConfig& m = model_.config();
    ForwardPass pass;
    model_.forward(ctx, Variable(random_input(ctx, {{7, m.channels, m.image_size, m.image_size}}, DType::f32, RngKey{8})), pass);
  }

  bool recorded() const { return runner_->recorded(); }
  void set_draws(int64_t draws) { step_->set_draws(draws); }

 private:
  TestBench host_;
  Bench bench_, steps_;
  Vit model_;
  double rate_;
  OptimConfig optim_;
  std::optional<Optimizer> optimizer_;
  std::optional<MovingAverage> average_;
  std::optional<TrainStep> step_;
  std::optional<RecordedStep> runner_;
};

}  // namespace ermoe::testing
