#include "tools/bench/orthogonality_bench.h"

#include "models/experts.h"
#include "models/optim.h"
#include "models/step_times.h"
#include "models/svd.h"

#include <cmath>

namespace ermoe {
namespace {

Parameter make_factor(const char* name, const Shape& shape) {
  Parameter p;
  p.name = name;
  p.shape = shape;
  p.role = Parameter::Role::factor;
  p.orthonormal = true;
  return p;
}

}  // namespace

OrthogonalityResult bench_orthogonality(const Engine& engine, const OrthogonalityOptions& options) {
  const ExecContext& ctx = engine.ctx;
  const int64_t D = options.width;
  Parameter U1 = make_factor("U1", {options.experts, 4 * D, D}), V1 = make_factor("V1", {options.experts, D, D});
  ParameterArena arena(*ctx.allocator, DType::f32, engine.compute_dtype(Precision::auto_), {&U1, &V1});
  for (Parameter* p : {&U1, &V1}) {
    const Tensor drawn = engine.host_ctx().empty(p->shape, DType::f32);
    init_orthonormal(engine.host_ctx(), drawn, key_of(RngKey{1}, p->name));
    copy(drawn, p->value);
  }
  arena.refresh_compute();
  OptimConfig optim;
  optim.lr = options.lr;
  optim.schedule = Schedule::constant;
  optim.warmup_steps = options.warmup;
  Optimizer optimizer(ctx, arena, optim, stiefel_method(options.method));
  arena.take_factor_gradients(*ctx.allocator);

  OrthogonalityResult result;
  std::vector<double> seconds;
  double total = 0, orthogonal = 0;
  for (int64_t step = 1; step <= options.steps; ++step) {
    for (const Parameter* p : {&U1, &V1}) fill_uniform(p->grad, key_of(RngKey{2}.fold(static_cast<uint64_t>(step)), p->name));
    Stopwatch watch;
    optimizer.step(ctx, learning_rate(optim, step - 1, options.steps), 1.0);
    if (engine.gpu) engine.gpu->synchronize();
    seconds.push_back(watch.lap());
    total += seconds.back();
    orthogonal += optimizer.orthogonal_seconds();
    if (step % options.check_every != 0 && step != options.steps) continue;
    for (const Parameter* p : {&U1, &V1}) {
      const double residual = orthogonality_residual(ctx, p->value);
      if (residual <= result.worst || std::isnan(result.worst)) continue;
      result.worst = residual;
      result.worst_step = step;
    }
    if (!(result.worst < 1)) break;  // nothing is left to measure
  }
  result.orthogonal_share = engine.gpu ? 0 : orthogonal / total;
  result.step = timing_of(std::move(seconds));
  return result;
}

}  // namespace ermoe
