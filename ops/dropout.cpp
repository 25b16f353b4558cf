#include "ops/dropout.h"

#include "ops/checks.h"
#include "ops/kernels/dropout.h"

namespace ermoe {
namespace {

void run(const ExecContext& ctx, const DropoutDims& dims, const Tensor& x, const GradSlot& y) {
  dispatch_compute(x.dtype(), "dropout", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::dropout(dims, x.data<T>(), y.dst.data<T>(), y.mode); },
        [&](auto) { cuda::dropout(ctx.stream, dims, x.data<T>(), y.dst.data<T>(), y.mode); });
  });
}

struct Dropout {
  static constexpr const char* name = "dropout";
  DropoutDims dims;

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const { run(ctx, dims, dy, out.into(0)); }
};

Variable drop(const ExecContext& ctx, const Variable& x, const DropoutDims& dims) {
  const Tensor y = ctx.empty(x.shape(), x.dtype());
  run(ctx, dims, x.value, {y, Accumulate::overwrite});
  return record(ctx, y, {&x}, Dropout{.dims = dims});
}

}  // namespace

Variable dropout(const ExecContext& ctx, const Variable& x, double p, RngKey key) {
  check_floats("dropout", {&x});
  check(p >= 0 && p < 1, "[dropout] probability {} is not in [0, 1)", p);
  if (!ctx.training() || p == 0) return x;
  return drop(ctx, x,
              {.units = x.value.numel(), .unit = 1, .p = p, .first = ctx.part.elements_before(x.value.numel()), .key = ctx.drawing(key)});
}

Variable stochastic_depth(const ExecContext& ctx, const Variable& x, double p, RngKey key) {
  check_floats("stochastic_depth", {&x});
  check(p >= 0 && p < 1, "[stochastic_depth] probability {} is not in [0, 1)", p);
  check(x.shape().rank() >= 1, "[stochastic_depth] x {} has no batch axis", x.shape().str());
  if (!ctx.training() || p == 0) return x;
  const int64_t batch = x.shape()[0];
  return drop(ctx, x,
              {.units = batch,
               .unit = batch == 0 ? 0 : x.value.numel() / batch,
               .p = p,
               .first = ctx.part.elements_before(batch),
               .key = ctx.drawing(key)});
}

}  // namespace ermoe
