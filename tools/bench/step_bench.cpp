#include "tools/bench/step_bench.h"

#include "core/enum_names.h"
#include "core/gather.h"
#include "models/config_rules.h"
#include "models/summary.h"
#include "models/task_loss.h"

#include <algorithm>
#include <cmath>

namespace ermoe {
namespace {

constexpr double rate = 1e-4;  // of learning

RouterKind router_of(BenchLayer layer) { return parse_enum<RouterKind>(enum_name(layer)).value_or(RouterKind::ermoe); }

void set_sizes(VitConfig& model, Workload workload) {
  model.width = workload == Workload::b16 || workload == Workload::ba ? 768 : 384;
  model.image_size = 224;
  model.patch = 16;
  model.classes = 1000;
  if (workload == Workload::c10) {
    model.image_size = 32;
    model.patch = 4;
    model.classes = 10;
  }
  if (workload == Workload::ba) {
    model.dimensions = 3;
    model.image_size = 128;
    model.channels = 1;
    model.classes = 1;
  }
}

}  // namespace

int64_t batch_of(const StepBenchOptions& options) {
  if (options.batch > 0) return options.batch;
  return options.workload == Workload::ba ? 32 : 16;
}

VitConfig workload_model(const StepBenchOptions& options) {
  VitConfig model;
  model.depth = 12;
  set_sizes(model, options.workload);
  model.heads = model.width / 64;
  model.moe.layers = options.layer == BenchLayer::dense ? "none" : "every:2";
  model.moe.router = router_of(options.layer);
  model.moe.orthogonality = options.orthogonality;
  // Routing by the context, as the paper has it: of all the dearest, and what tools/torch_layer.py and published figures have.
  model.moe.basis = Basis::leading;
  model.moe.score = Score::context_cosine;
  model.moe.combine = Combine::normalized;
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
  const Communicator& ranks = *ctx_.comm;
  if (engine.gpu || ranks.size() > 1) model_.move_to(engine.ctx, compute, GradWrites::once);
  options_.batch = batch_of(options);
  ctx_.part = {.first = options_.batch * ranks.rank(), .count = options_.batch, .total = options_.batch * ranks.size()};
  if (options.workload == Workload::ba) loss_.kind = LossKind::l1;
  images_ = host.empty(input_shape(m, options_.batch), DType::f32, "batch");
  fill_normal(images_, 1.0, RngKey{2}.fold(static_cast<uint64_t>(ranks.rank())));
  images_ = on_device_of(engine.ctx, images_);
  targets_ = on_device_of(engine.ctx, made_targets(host, loss_, m.classes, options_.batch));
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
  TrainStep train(lasting, model_, optimizer, nullptr, optim.clip);
  const TaskLoss task(lasting, loss_, model_.config().classes, DType::f32);
  const TargetLoss loss = [&](const ExecContext& c, const Variable& output, const Tensor& targets) { return task(c, output, targets); };
  const bool recorded = options_.running == Running::recorded && ctx_.expert_ranks->size() == 1;
  RecordedStep steps(train, recorded ? engine_.gpu.get() : nullptr, loss);
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
  const ModelSummary cost = summarize(model_);
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
    if (options_.breaking == Breaking::families) watch_steps(steps, train, loss, result);
  } else {
    const auto nearest = std::ranges::min_element(seconds, {}, [&](double s) { return std::abs(s - result.step.median); });
    result.phases = phases[static_cast<size_t>(nearest - seconds.begin())];
  }
  return result;
}

/// Where every rank can be watched: steps are all ranks' together.
void StepBench::watch_steps(RecordedStep& steps, TrainStep& train, const TargetLoss& loss, StepBenchResult& result) {
  const FoundProfiler found = engine_.gpu->profiler();
  double missing[] = {found.profiler ? 0.0 : 1.0};
  reduce_over_ranks(*ctx_.comm, missing, ReduceOp::max);
  if (missing[0] > 0) {
    result.breakdown.fault = found.profiler ? "another rank has no profiler" : found.fault;
    return;
  }
  if (result.ranks > 1) result.collectives = collectives_of(watch_step(steps, *found.profiler));
  result.breakdown = break_down_steps(train, loss, *found.profiler, result.step.median);
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
Breakdown StepBench::break_down_steps(TrainStep& train, const TargetLoss& loss, GpuProfiler& profiler, double seconds) {
  RecordedStep steps(train, nullptr, loss);
  ctx_.listener = &profiler;
  const std::vector<GpuActivity> activities = watch_step(steps, profiler);
  ctx_.listener = nullptr;
  return break_down(activities, seconds);
}

}  // namespace ermoe
