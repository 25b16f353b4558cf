#include "ops/score_variance.h"

#include "ops/checks.h"
#include "ops/kernels/score_variance.h"
#include "ops/optional_tensor.h"

namespace ermoe {
namespace {

struct ScoreVariance {
  static constexpr const char* name = "score_variance";
  ScoreVarianceDims dims;
  Tensor scores;   // (N, E)
  Tensor means;    // (E) f64
  Tensor weights;  // (N) or undefined

  void backward(const ExecContext& ctx, const Tensor& dloss, GradWriter& out) const {
    const auto [dscores, mode] = out.into(0);
    dispatch_float(scores.dtype(), name, [&, &dscores = dscores, mode = mode](auto tag) {
      using T = decltype(tag);
      const T *s = scores.data<T>(), *dl = dloss.data<T>(), *w = data_or_null<T>(weights);
      const double* const mean = means.data<double>();
      T* const dst = dscores.template data<T>();
      on_device(
          ctx, tag, [&](auto) { cpu::score_variance_backward(dims, s, w, mean, dl, dst, mode); },
          [&](auto) { cuda::score_variance_backward(ctx.stream, dims, s, w, mean, dl, dst, mode); });
    });
  }
};

}  // namespace

Variable score_variance_loss(const ExecContext& ctx, const Variable& scores, const Tensor& weights) {
  check_floats(ScoreVariance::name, {&scores});
  const Shape& shape = scores.shape();
  check(shape.rank() == 2 && shape.numel() > 0, "[score_variance] wants (N, E) with N, E >= 1 but got {}", shape.str());
  check(!weights.defined() || (weights.shape() == Shape{shape[0]} && weights.dtype() == scores.dtype()),
        "[score_variance] {} {} but weights {} {}", name_of(scores.dtype()), shape.str(), name_of(weights.dtype()), weights.shape().str());
  const ScoreVarianceDims dims{.rows = shape[0], .experts = shape[1]};
  Tensor loss = ctx.empty({}, scores.dtype());
  const Tensor means = ctx.empty({dims.experts}, DType::f64);
  dispatch_float(scores.dtype(), ScoreVariance::name, [&](auto tag) {
    using T = decltype(tag);
    const T *s = scores.value.data<T>(), *w = data_or_null<T>(weights);
    on_device(
        ctx, tag, [&](auto) { cpu::score_variance_forward(dims, s, w, means.data<double>(), loss.data<T>()); },
        [&](auto) {
          const auto scratch = ctx.workspace->borrow<double>(cuda::score_variance_scratch(dims));
          cuda::score_variance_forward(ctx.stream, dims, s, w, means.data<double>(), loss.data<T>(), scratch.data());
        });
  });
  return record(ctx, std::move(loss), {&scores}, ScoreVariance{.dims = dims, .scores = scores.value, .means = means, .weights = weights});
}

}  // namespace ermoe
