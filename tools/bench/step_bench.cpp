#include "tools/bench/step_bench.h"

#include "models/summary.h"
#include "models/task_loss.h"

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

constexpr double rate = 1e-4;  // of learning

RouterKind router_of(BenchLayer layer) {
  switch (layer) {
    case BenchLayer::linear: return RouterKind::linear;
    case BenchLayer::vmoe: return RouterKind::vmoe;
    case BenchLayer::switch_lbl: return RouterKind::switch_lbl;
    default: return RouterKind::ermoe;
  }
}

}  // namespace

VitConfig workload_model(const StepBenchOptions& options) {
  VitConfig model;
  model.depth = 12;
  model.width = options.workload == Workload::b16 ? 768 : 384;
  model.heads = model.width / 64;
  model.image_size = options.workload == Workload::c10 ? 32 : 224;
  model.patch = options.workload == Workload::c10 ? 4 : 16;
  model.classes = options.workload == Workload::c10 ? 10 : 1000;
  model.moe.layers = options.layer == BenchLayer::dense ? "none" : "every:2";
  model.moe.router = router_of(options.layer);
  model.moe.orthogonality = options.orthogonality;
  if (model.moe.router != RouterKind::ermoe) {
    model.moe.expert = ExpertKind::plain;
    model.moe.basis = Basis::untied;
  }
  return model;
}

StepBench::StepBench(Engine& engine, const StepBenchOptions& options)
    : engine_(engine), ctx_(engine.step_ctx()), options_(options), model_(workload_model(options)) {
  ctx_.mode = Mode::train;
  ctx_.rng = RngKey{4};
  const VitConfig& m = model_.config();
  const ExecContext& host = engine.host_ctx();
  const DType compute = engine.compute_dtype(options.precision);
  model_.allocate(host, DType::f32);
  model_.init(host, RngKey{1});
  if (engine.gpu) model_.move_to(engine.ctx, compute);
  images_ = host.empty({options.batch, m.channels, m.image_size, m.image_size}, DType::f32, "batch");
  fill_normal(images_, 1.0, RngKey{2});
  targets_ = host.empty({options.batch, m.classes}, DType::f32, "batch");
  fill(targets_, 0);
  for (int64_t b = 0; b < options.batch; ++b) {
    const auto label = static_cast<int64_t>(uniform_int(RngKey{3}, static_cast<uint64_t>(b), static_cast<uint64_t>(m.classes)));
    targets_.data<float>()[b * m.classes + label] = 1;
  }
  images_ = on_device_of(engine.ctx, images_);
  targets_ = on_device_of(engine.ctx, targets_);
}

StepReport StepBench::step(RecordedStep& steps) {
  StepReport report = steps.run(
      ctx_, 1, [&](int64_t) { return MicroBatch{.images = images_, .targets = targets_, .allow = {}}; }, rate);
  check(report.accepted, "[step] refused: {}", report.fault);
  return report;
}

StepBenchResult StepBench::run(Orthogonality method) {
  OptimConfig optim;
  optim.lr = rate;
  optim.clip = 0;
  const ExecContext& lasting = engine_.ctx;  // what outlives a step
  Optimizer optimizer(lasting, model_.arena(), optim, stiefel_method(method));
  TrainStep train(model_, optimizer, nullptr, optim.clip);
  const TaskLoss task(lasting, LossConfig{}, model_.config().classes, DType::f32);
  const TargetLoss loss = [&](const ExecContext& c, const Variable& output, const Tensor& targets) { return task(c, output, targets); };
  RecordedStep steps(train, options_.running == Running::recorded ? engine_.gpu.get() : nullptr, loss);
  WorkClock clock(engine_);
  StepBenchResult result;
  std::vector<double> seconds;
  std::vector<StepTimes> phases;
  engine_.reset_peak();
  for (int64_t i = 0; i < options_.warmup + options_.steps; ++i) {
    clock.start();
    const StepReport report = step(steps);
    const double passed = clock.stop();
    result.loss = report.loss;
    if (i < options_.warmup) continue;
    seconds.push_back(passed);
    phases.push_back(report.times);
  }
  const auto images = static_cast<double>(options_.batch);
  const ModelSummary cost = summarize(model_);
  result.peak_bytes = engine_.memory().peak;
  result.recorded = steps.recorded();
  result.step = timing_of(seconds);
  result.images_per_second = images / result.step.median;
  result.useful_flops = 3 * images * (cost.forward_flops - cost.scoring_flops);
  result.all_flops = 3 * images * cost.forward_flops + cost.step_flops;
  result.parameters = cost.parameters;
  if (engine_.gpu) {
    if (options_.breaking == Breaking::families) result.breakdown = break_down_steps(train, loss, result.step.median);
  } else {
    const auto nearest = std::ranges::min_element(seconds, {}, [&](double s) { return std::abs(s - result.step.median); });
    result.phases = phases[static_cast<size_t>(nearest - seconds.begin())];
  }
  return result;
}

/// Op by op, so that each can be told apart. The second of two watched steps: in the first the profiler itself has its memory to
/// find.
Breakdown StepBench::break_down_steps(TrainStep& train, const TargetLoss& loss, double seconds) {
  const FoundProfiler found = engine_.gpu->profiler();
  if (!found.profiler) {
    Breakdown none;
    none.fault = found.fault;
    return none;
  }
  RecordedStep steps(train, nullptr, loss);
  ctx_.listener = found.profiler.get();
  std::vector<GpuActivity> activities;
  for (int round = 0; round < 2; ++round) {
    found.profiler->start();
    step(steps);
    activities = found.profiler->stop();
  }
  ctx_.listener = nullptr;
  return break_down(activities, seconds);
}

}  // namespace ermoe
