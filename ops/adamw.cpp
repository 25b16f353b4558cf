#include "ops/adamw.h"

namespace ermoe {

void adamw_step(const ExecContext& ctx, AdamDims step, const Tensor& p, const Tensor& g, const Tensor& m, const Tensor& v) {
  check(g.shape() == p.shape() && m.shape() == p.shape() && v.shape() == p.shape(), "[adamw] p {} but g {}, m {}, v {}", p.shape().str(),
        g.shape().str(), m.shape().str(), v.shape().str());
  step.numel = p.numel();
  dispatch_compute(p.dtype(), "adamw", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::adamw_step(step, p.data<T>(), g.data<T>(), m.data<T>(), v.data<T>()); },
        [&](auto) { cuda::adamw_step(ctx.stream, step, p.data<T>(), g.data<T>(), m.data<T>(), v.data<T>()); });
  });
}

void adam_direction(const ExecContext& ctx, AdamDims step, const Tensor& g, const Tensor& m, const Tensor& v, const Tensor& direction) {
  check(g.numel() == direction.numel() && m.numel() == g.numel() && v.numel() == g.numel(), "[adam_direction] g {} but direction {}",
        g.shape().str(), direction.shape().str());
  step.numel = g.numel();
  dispatch_compute(g.dtype(), "adam_direction", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::adam_direction(step, g.data<T>(), m.data<T>(), v.data<T>(), direction.data<T>()); },
        [&](auto) { cuda::adam_direction(ctx.stream, step, g.data<T>(), m.data<T>(), v.data<T>(), direction.data<T>()); });
  });
}

double squared_norm(const ExecContext& ctx, const Tensor& t) {
  double sum = 0;
  dispatch_compute(t.dtype(), "squared_norm", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { sum = cpu::squared_norm(t.numel(), t.data<T>()); },
        [&](auto) { sum = cuda::squared_norm(ctx.stream, t.numel(), t.data<T>()); });
  });
  return sum;
}

void moving_average(const ExecContext& ctx, double decay, const Tensor& x, const Tensor& average) {
  check(x.shape() == average.shape(), "[moving_average] x {} but average {}", x.shape().str(), average.shape().str());
  dispatch_compute(x.dtype(), "moving_average", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::moving_average(x.numel(), decay, x.data<T>(), average.data<T>()); },
        [&](auto) { cuda::moving_average(ctx.stream, x.numel(), decay, x.data<T>(), average.data<T>()); });
  });
}

}  // namespace ermoe
