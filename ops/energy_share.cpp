#include "ops/energy_share.h"

#include "ops/checks.h"
#include "ops/kernels/energy_share.h"

namespace ermoe {
namespace {

struct EnergyShare {
  static constexpr const char* name = "energy_share";
  EnergyShareDims dims;
  Tensor x;      // (…, D)
  Tensor total;  // (rows), Σ x² + eps

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const GradSlot dx = out.into(0);
    dispatch_compute(x.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      const auto* sums = total.data<Master<T>>();
      on_device(
          ctx, tag, [&](auto) { cpu::energy_share_backward(dims, x.data<T>(), sums, dy.data<T>(), dx.dst.data<T>(), dx.mode); },
          [&](auto) { cuda::energy_share_backward(ctx.stream, dims, x.data<T>(), sums, dy.data<T>(), dx.dst.data<T>(), dx.mode); });
    });
  }
};

}  // namespace

Variable energy_share(const ExecContext& ctx, const Variable& x, double eps) {
  check_floats(EnergyShare::name, {&x});
  check(x.shape().rank() >= 1, "[energy_share] x {} has no last axis", x.shape().str());
  check(eps > 0, "[energy_share] x {} with eps {}", x.shape().str(), eps);
  const EnergyShareDims dims{.rows = x.shape().rows(), .cols = x.shape()[-1], .eps = eps};
  Tensor y = ctx.empty(x.shape(), x.dtype());
  const Tensor total = ctx.empty({dims.rows}, master_of(x.dtype()));
  dispatch_compute(x.dtype(), EnergyShare::name, [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::energy_share_forward(dims, x.value.data<T>(), y.data<T>(), total.data<Master<T>>()); },
        [&](auto) { cuda::energy_share_forward(ctx.stream, dims, x.value.data<T>(), y.data<T>(), total.data<Master<T>>()); });
  });
  return record(ctx, std::move(y), {&x}, EnergyShare{.dims = dims, .x = x.value, .total = total});
}

}  // namespace ermoe
