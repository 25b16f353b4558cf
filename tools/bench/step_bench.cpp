#include "tools/bench/step_bench.h"

#include "core/gather.h"

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

constexpr double rate = 1e-4;  // of learning

}  // namespace

StepBench::StepBench(Engine& engine, const StepBenchOptions& options)
    : engine_(engine),
      ctx_(engine.step_ctx()),
      options_(options),
      task_(make_task(engine, options.what, batch_of(options.what.workload, options.batch))) {
  ctx_.mode = Mode::train;
  ctx_.rng = RngKey{4};
  const ExecContext& host = engine.host_ctx();
  Model& model = *task_.model;
  model.allocate(host, DType::f32);
  model.init(host, RngKey{1});
  const Communicator& ranks = *ctx_.comm;
  if (engine.gpu || ranks.size() > 1) model.move_to(engine.ctx, engine.compute_dtype(options.precision), GradWrites::once);
  options_.batch = batch_of(options.what.workload, options.batch);
  ctx_.part = {.first = options_.batch * ranks.rank(), .count = options_.batch, .total = options_.batch * ranks.size()};
}

StepReport StepBench::step(RecordedStep& steps) {
  StepReport report = steps.run(
      ctx_, 1, [&](int64_t) { return task_.batch; }, rate);
  check(report.accepted, "[step] refused: {}", report.fault);
  return report;
}

StepBenchResult StepBench::run(Orthogonality method) {
  OptimConfig optim;
  optim.lr = rate;
  optim.clip = 0;
  const ExecContext& lasting = engine_.ctx;  // what outlives a step
  Optimizer optimizer(lasting, task_.model->arena(), optim, stiefel_method(method));
  TrainStep train(lasting, *task_.model, optimizer, nullptr, optim.clip);
  const bool recorded = options_.running == Running::recorded && ctx_.expert_ranks->size() == 1;
  RecordedStep steps(train, recorded ? engine_.gpu.get() : nullptr, task_.loss);
  WorkClock clock(engine_);
  StepBenchResult result;
  std::vector<double> seconds;
  std::vector<StepTimes> phases;
  engine_.reset_peak();
  for (int64_t i = 0; i < options_.warmup + options_.steps; ++i) {
    clock.start();
    const StepReport report = step(steps);
    const double passed = clock.stop();
    result.loss = report.loss;  // this rank's part
    if (i < options_.warmup) continue;
    seconds.push_back(passed);
    phases.push_back(report.times);
  }
  reduce_over_ranks(*ctx_.comm, seconds, ReduceOp::max);
  reduce_over_ranks(*ctx_.comm, std::span(&result.loss, 1));
  result.ranks = ctx_.comm->size();
  const auto images = static_cast<double>(options_.batch * result.ranks);
  const ModelSummary& cost = task_.cost;
  result.peak_bytes = engine_.memory().peak;
  result.reserved_bytes = engine_.memory().reserved;
  for (const auto& [user, bytes] : engine_.allocator.users())
    if (user == "optimizer") result.optimizer_bytes = bytes;
  result.recorded = steps.recorded();
  result.step = timing_of(seconds);
  result.images_per_second = images / result.step.median;
  result.useful_flops = 3 * images * (cost.forward_flops - cost.scoring_flops);
  result.all_flops = 3 * images * cost.forward_flops + cost.step_flops;
  result.parameters = cost.parameters;
  if (engine_.gpu) {
    if (options_.breaking == Breaking::families) watch_steps(steps, train, result);
  } else {
    const auto nearest = std::ranges::min_element(seconds, {}, [&](double s) { return std::abs(s - result.step.median); });
    result.phases = phases[static_cast<size_t>(nearest - seconds.begin())];
  }
  return result;
}

/// Where every rank can be watched: steps are all ranks' together.
void StepBench::watch_steps(RecordedStep& steps, TrainStep& train, StepBenchResult& result) {
  const FoundProfiler found = engine_.gpu->profiler();
  double missing[] = {found.profiler ? 0.0 : 1.0};
  reduce_over_ranks(*ctx_.comm, missing, ReduceOp::max);
  if (missing[0] > 0) {
    result.breakdown.fault = found.profiler ? "another rank has no profiler" : found.fault;
    return;
  }
  if (result.ranks > 1) result.collectives = collectives_of(watch_step(steps, *found.profiler));
  result.breakdown = break_down_steps(train, *found.profiler, result.step.median);
}

/// The second of two: in the first the profiler itself has its memory to find.
std::vector<GpuActivity> StepBench::watch_step(RecordedStep& steps, GpuProfiler& profiler) {
  std::vector<GpuActivity> activities;
  for (int round = 0; round < 2; ++round) {
    profiler.start();
    step(steps);
    activities = profiler.stop();
  }
  return activities;
}

/// Op by op, so that each can be told apart.
Breakdown StepBench::break_down_steps(TrainStep& train, GpuProfiler& profiler, double seconds) {
  RecordedStep steps(train, nullptr, task_.loss);
  ctx_.listener = &profiler;
  const std::vector<GpuActivity> activities = watch_step(steps, profiler);
  ctx_.listener = nullptr;
  return break_down(activities, seconds);
}

}  // namespace ermoe
