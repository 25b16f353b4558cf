#include "tools/bench/step_bench.h"

#include "models/summary.h"
#include "models/task_loss.h"

#include <algorithm>

namespace ermoe {
namespace {

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
    : ctx_(engine.ctx), options_(options), model_(workload_model(options)) {
  const VitConfig& m = model_.config();
  const ExecContext& host = engine.host_ctx();
  const DType compute = engine.compute_dtype(options.precision);
  model_.allocate(host, DType::f32);
  model_.init(host, RngKey{1});
  if (engine.gpu) model_.move_to(ctx_, compute);
  images_ = host.empty({options.batch, m.channels, m.image_size, m.image_size}, DType::f32, "batch");
  fill_normal(images_, 1.0, RngKey{2});
  targets_ = host.empty({options.batch, m.classes}, DType::f32, "batch");
  fill(targets_, 0);
  for (int64_t b = 0; b < options.batch; ++b) {
    const auto label = static_cast<int64_t>(uniform_int(RngKey{3}, static_cast<uint64_t>(b), static_cast<uint64_t>(m.classes)));
    targets_.data<float>()[b * m.classes + label] = 1;
  }
  images_ = on_device_of(ctx_, images_);
  targets_ = on_device_of(ctx_, targets_);
}

StepBenchResult StepBench::run(Orthogonality method) {
  struct Sample {
    double seconds;
    StepTimes phases;
  };
  OptimConfig optim;
  optim.lr = 1e-4;
  optim.clip = 0;
  Optimizer optimizer(ctx_, model_.arena(), optim, stiefel_method(method));
  TrainStep train(model_, optimizer, nullptr, optim.clip);
  ExecContext ctx = ctx_;
  ctx.mode = Mode::train;
  const auto loss = [&](const ExecContext& c, const Variable& logits) { return task_loss(c, LossConfig{}, logits, targets_); };
  StepBenchResult result;
  std::vector<Sample> samples;
  ctx.allocator->reset_peak();
  for (int64_t i = 0; i < options_.warmup + options_.steps; ++i) {
    ctx.rng = RngKey{4}.fold(static_cast<uint64_t>(i));
    Stopwatch watch;
    train.begin(ctx, 1);
    train.micro_batch(ctx, images_, loss);
    const StepReport report = train.finish(ctx, optim.lr);
    const double seconds = watch.lap();
    check(report.accepted, "step {}: {}", i, report.fault);
    result.loss = report.loss;
    if (i >= options_.warmup) samples.push_back({seconds, report.times});
  }
  std::ranges::sort(samples, {}, &Sample::seconds);
  const Sample& middle = samples[samples.size() / 2];
  const auto images = static_cast<double>(options_.batch);
  const ModelSummary cost = summarize(model_);
  result.step = {.median = middle.seconds, .min = samples.front().seconds, .max = samples.back().seconds};
  result.phases = middle.phases;
  result.images_per_second = images / middle.seconds;
  result.useful_flops = 3 * images * (cost.forward_flops - cost.scoring_flops);
  result.all_flops = 3 * images * cost.forward_flops + cost.step_flops;
  result.peak_bytes = ctx.allocator->stats().peak;
  result.parameters = cost.parameters;
  return result;
}

}  // namespace ermoe
