#include "tools/bench/layer_bench.h"

#include "core/gather.h"

#include <algorithm>
#include <numeric>

namespace ermoe {
namespace {

/// The workload's model, no deeper than to its first layer with experts.
VitConfig layer_model(const LayerBenchOptions& options) {
  check_input(options.layer != BenchLayer::dense, "--router dense: a layer without experts is a part of a step, not of this benchmark");
  VitConfig model = workload_model({.workload = options.workload, .layer = options.layer});
  model.depth = 2;
  return model;
}

}  // namespace

LayerBench::LayerBench(Engine& engine, const LayerBenchOptions& options)
    : engine_(engine), ctx_(engine.step_ctx()), options_(options), model_(layer_model(options)) {
  ctx_.mode = Mode::train;
  ctx_.rng = RngKey{4};
  const ExecContext& host = engine.host_ctx();
  const DType compute = engine.compute_dtype(options.precision);
  model_.allocate(host, DType::f32);
  model_.init(host, RngKey{1});
  if (engine.gpu || ctx_.comm->size() > 1) model_.move_to(engine.ctx, compute, GradWrites::once);
  options_.batch = batch_of(options.workload, options.batch);
  const Shape shape{options_.batch, model_.tokens(), model_.config().width};
  uint64_t number = 3 * static_cast<uint64_t>(ctx_.comm->rank());
  for (Tensor* t : {&x_, &c_, &dy_}) {
    *t = engine.ctx.empty(shape, compute, "benchmark");
    fill_uniform(*t, RngKey{2}.fold(number++));
  }
}

/// Recorded work goes before what it uses.
LayerBench::~LayerBench() { recording_.reset(); }

void LayerBench::pass() {
  model_.arena().begin_gradients();
  Tape tape;
  ForwardPass forward;
  PinnedSelection pinned;
  const ExecContext ctx = ctx_.with_tape(&tape);
  const Variable x = tape.leaf(x_), c = layer().wants_context() ? tape.leaf(c_) : Variable();
  const Variable y = layer().forward(ctx, x, c, forward, pinned);
  tape.backward(ctx, y, dy_);
  route_ = std::move(forward.routes.front());
}

/// As a step does: calibrated scores spread the load as they do in training.
void LayerBench::settle_statistics() {
  layer().router().reduce_statistics(ctx_);
  layer().router().accept_step(ctx_);
}

void LayerBench::record() {
  kept_ = ctx_.allocator->keep_cache([] {});
  recording_ = engine_.gpu->record([this] {
    pass();
    layer().router().discard_step();
  });
}

/// Of the last pass: every rank knows how many rows it had for which expert.
void LayerBench::count_rows(LayerBenchResult& result) {
  const ExpertShare& share = layer().experts().share();
  const Tensor on_host = ermoe::on_host(ctx_, route_.plan.counts);
  const auto own = on_host.span<int32_t>();
  Communicator& ranks = *ctx_.expert_ranks;
  const std::vector<int32_t> all = gather_from_all(ranks, std::vector<int32_t>(own.begin(), own.end()));
  int64_t came = 0;
  const auto held = [&](std::span<const int32_t> counts) {
    const auto mine = counts.subspan(static_cast<size_t>(share.held.first), static_cast<size_t>(share.held.count));
    return std::reduce(mine.begin(), mine.end(), int64_t{0});
  };
  for (size_t r = 0; r < static_cast<size_t>(ranks.size()); ++r) came += held(std::span(all).subspan(r * own.size(), own.size()));
  const int64_t slots = std::reduce(own.begin(), own.end(), int64_t{0}), stayed = held(own);
  // Rows go out and their results come back, and so do the gradients: what this rank sends is its own rows and others' results.
  const auto row_bytes = x_.shape()[2] * static_cast<int64_t>(size_of(x_.dtype()));
  const int64_t table = (ranks.size() - 1) * static_cast<int64_t>(own.size_bytes());  // of counts, before the rows
  const int64_t sent = 2 * ((slots - stayed) + (came - stayed)) * row_bytes + table;
  double most[] = {static_cast<double>(came), static_cast<double>(sent), static_cast<double>(slots)};
  reduce_over_ranks(*ctx_.comm, most, ReduceOp::max);
  result.most_rows = static_cast<int64_t>(most[0]);
  result.sent_bytes = static_cast<int64_t>(most[1]);
  result.slots = static_cast<int64_t>(most[2]);
}

LayerBenchResult LayerBench::run() {
  LayerBenchResult result;
  const bool waits = !layer().experts().share().holds_all();  // the host reads how many rows travel
  const bool recorded = engine_.gpu && !waits && !ctx_.allocator->exact() && options_.running == Running::recorded;
  for (int64_t i = 0; i < std::max<int64_t>(options_.warmup, recorded ? 2 : 0); ++i) {  // libraries load outside of a recording
    pass();
    settle_statistics();
  }
  if (recorded) record();
  const int64_t untimed = recording_ ? 2 : 0;
  WorkClock clock(engine_);
  std::vector<double> seconds;
  for (int64_t i = 0; i < untimed + options_.steps; ++i) {
    if (engine_.gpu) engine_.gpu->synchronize();
    ctx_.comm->barrier();
    clock.start();
    if (recording_) {
      recording_->replay();
    } else {
      pass();
    }
    const double passed = clock.stop();
    layer().router().discard_step();
    if (i >= untimed) seconds.push_back(passed);
  }
  reduce_over_ranks(*ctx_.comm, seconds, ReduceOp::max);
  result.pass = timing_of(std::move(seconds));
  result.tokens = options_.batch * model_.tokens();
  result.recorded = recording_ != nullptr;
  count_rows(result);
  return result;
}

}  // namespace ermoe
