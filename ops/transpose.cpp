#include "ops/transpose.h"

#include "ops/checks.h"
#include "ops/kernels/transpose.h"

namespace ermoe {
namespace {

void run(const ExecContext& ctx, const TransposeDims& dims, const Tensor& x, const GradSlot& y) {
  dispatch_compute(x.dtype(), "transpose", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::transpose(dims, x.data<T>(), y.dst.data<T>(), y.mode); },
        [&](auto) { cuda::transpose(ctx.stream, dims, x.data<T>(), y.dst.data<T>(), y.mode); });
  });
}

struct Transpose {
  static constexpr const char* name = "transpose";
  TransposeDims dims;  // of the way back

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const { run(ctx, dims, dy, out.into(0)); }
};

}  // namespace

Variable transpose(const ExecContext& ctx, const Variable& x) {
  check_floats(Transpose::name, {&x});
  check(x.shape().rank() >= 2, "[transpose] x {} has no two axes to exchange", x.shape().str());
  const TransposeDims dims{.batch = x.shape().rows(-2), .m = x.shape()[-2], .n = x.shape()[-1]};
  const Tensor y = ctx.empty(x.shape().with(-2, dims.n).with(-1, dims.m), x.dtype());
  run(ctx, dims, x.value, {y, Accumulate::overwrite});
  return record(ctx, y, {&x}, Transpose{.dims = {.batch = dims.batch, .m = dims.n, .n = dims.m}});
}

}  // namespace ermoe
