#include "ops/l2_normalize.h"

#include "ops/checks.h"
#include "ops/kernels/l2_normalize.h"

namespace ermoe {
namespace {

struct L2Normalize {
  static constexpr const char* name = "l2_normalize";
  L2NormalizeDims dims;
  Tensor y;     // (…, D)
  Tensor norm;  // (N)

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const GradSlot dx = out.into(0);
    dispatch_compute(y.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      on_device(
          ctx, tag,
          [&](auto) { cpu::l2_normalize_backward(dims, y.data<T>(), norm.data<Master<T>>(), dy.data<T>(), dx.dst.data<T>(), dx.mode); },
          [&](auto) {
            cuda::l2_normalize_backward(ctx.stream, dims, y.data<T>(), norm.data<Master<T>>(), dy.data<T>(), dx.dst.data<T>(), dx.mode);
          });
    });
  }
};

}  // namespace

Variable l2_normalize(const ExecContext& ctx, const Variable& x, double eps) {
  check_floats(L2Normalize::name, {&x});
  check(x.shape().rank() >= 1, "[l2_normalize] x {} has no last axis", x.shape().str());
  check(eps > 0, "[l2_normalize] x {} with eps {}", x.shape().str(), eps);
  const L2NormalizeDims dims{.rows = x.shape().rows(), .cols = x.shape()[-1], .eps = eps};
  const Tensor y = ctx.empty(x.shape(), x.dtype()), norm = ctx.empty({dims.rows}, master_of(x.dtype()));
  dispatch_compute(x.dtype(), L2Normalize::name, [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::l2_normalize_forward(dims, x.value.data<T>(), y.data<T>(), norm.data<Master<T>>()); },
        [&](auto) { cuda::l2_normalize_forward(ctx.stream, dims, x.value.data<T>(), y.data<T>(), norm.data<Master<T>>()); });
  });
  return record(ctx, y, {&x}, L2Normalize{.dims = dims, .y = y, .norm = norm});
}

}  // namespace ermoe
