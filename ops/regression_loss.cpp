#include "ops/regression_loss.h"

#include "ops/checks.h"
#include "ops/kernels/regression_loss.h"

namespace ermoe {
namespace {

struct Regression {
  static constexpr const char* name = "regression_loss";
  RegressionDims dims;
  Tensor prediction;  // (B)
  Tensor target;      // (B)

  void backward(const ExecContext& ctx, const Tensor& dloss, GradWriter& out) const {
    const auto [dprediction, mode] = out.into(0);
    dispatch_compute(prediction.dtype(), name, [&, &dprediction = dprediction, mode = mode](auto tag) {
      using T = decltype(tag);
      const T* const p = prediction.data<T>();
      const Master<T>*t = target.data<Master<T>>(), *dl = dloss.data<Master<T>>();
      T* const dp = dprediction.template data<T>();
      on_device(
          ctx, tag, [&](auto) { cpu::regression_loss_backward(dims, p, t, dl, dp, mode); },
          [&](auto) { cuda::regression_loss_backward(ctx.stream, dims, p, t, dl, dp, mode); });
    });
  }
};

Variable regression_loss(const ExecContext& ctx, const char* op, const Variable& prediction, const Tensor& target, RegressionLoss kind,
                         double delta = 1) {
  check_floats(op, {&prediction});
  check(!target.defined() || target.dtype() == master_of(prediction.dtype()), "[{}] prediction {} wants a target of {}, not {}", op,
        name_of(prediction.dtype()), name_of(master_of(prediction.dtype())), name_of(target.dtype()));
  check(target.defined() && target.shape() == prediction.shape(), "[{}] prediction {} but target {}", op, prediction.shape().str(),
        target.shape().str());
  check(prediction.value.numel() > 0, "[{}] prediction {} holds nothing", op, prediction.shape().str());
  const RegressionDims dims{.numel = prediction.value.numel(), .kind = kind, .delta = delta};
  Tensor loss = ctx.empty({}, master_of(prediction.dtype()));
  dispatch_compute(prediction.dtype(), op, [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag,
        [&](auto) { cpu::regression_loss_forward(dims, prediction.value.data<T>(), target.data<Master<T>>(), loss.data<Master<T>>()); },
        [&](auto) {
          cuda::regression_loss_forward(ctx.stream, dims, prediction.value.data<T>(), target.data<Master<T>>(), loss.data<Master<T>>());
        });
  });
  return record(ctx, std::move(loss), {&prediction}, Regression{.dims = dims, .prediction = prediction.value, .target = target});
}

}  // namespace

Variable l1_loss(const ExecContext& ctx, const Variable& prediction, const Tensor& target) {
  return regression_loss(ctx, "l1_loss", prediction, target, RegressionLoss::l1);
}

Variable l2_loss(const ExecContext& ctx, const Variable& prediction, const Tensor& target) {
  return regression_loss(ctx, "l2_loss", prediction, target, RegressionLoss::l2);
}

Variable huber_loss(const ExecContext& ctx, const Variable& prediction, const Tensor& target, double delta) {
  check(delta > 0, "[huber_loss] delta {} is not positive", delta);
  return regression_loss(ctx, "huber_loss", prediction, target, RegressionLoss::huber, delta);
}

}  // namespace ermoe
