#include "ops/basis_projection.h"

#include "ops/checks.h"
#include "ops/kernels/basis_projection.h"
#include "ops/kernels/linear.h"

namespace ermoe {
namespace {

/// Calls fn(pointer to x - mean), which is x itself without a mean and scratch memory with one.
template <typename T, typename Fn>
void with_centered(const ExecContext& ctx, const Tensor& x, const Tensor& mean, Fn&& fn) {
  if (!mean.defined()) return fn(static_cast<const T*>(x.data<T>()));
  const CenterRowsDims dims{x.shape()[0], x.shape()[1]};
  const auto centered = ctx.workspace->borrow<T>(x.numel());
  on_device(
      ctx, T{}, [&](auto) { cpu::center_rows(dims, x.data<T>(), mean.data<T>(), centered.data()); },
      [&](auto) { cuda::center_rows(ctx.stream, dims, x.data<T>(), mean.data<Master<T>>(), centered.data()); });
  fn(static_cast<const T*>(centered.data()));
}

struct BasisProjection {
  static constexpr const char* name = "basis_projection";
  LinearDims dims;
  Tensor x;      // (N, D)
  Tensor basis;  // (E, R, D)
  Tensor mean;   // (D), f32 where x is bf16; or undefined

  void backward(const ExecContext& ctx, const Tensor& dz, GradWriter& out) const {
    dispatch_compute(x.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      if (out.wants(0)) {
        const GradSlot dx = out.into(0);
        on_device(
            ctx, tag, [&](auto) { cpu::linear_backward_x(dims, dz.data<T>(), basis.data<T>(), dx.dst.data<T>(), dx.mode); },
            [&](auto) { cuda::linear_backward_x(ctx.stream, dims, dz.data<T>(), basis.data<T>(), dx.dst.data<T>(), dx.mode); });
      }
      if (out.wants(1)) {
        const GradSlot db = out.into_master(1);
        with_centered<T>(ctx, x, mean, [&](const T* centered) {
          on_device(
              ctx, tag, [&](auto) { cpu::linear_backward_w(dims, dz.data<T>(), centered, db.dst.data<T>(), db.mode); },
              [&](auto) { cuda::linear_backward_w(ctx.stream, dims, dz.data<T>(), centered, db.dst.data<Master<T>>(), db.mode); });
        });
      }
    });
  }
};

}  // namespace

Variable basis_projection(const ExecContext& ctx, const Variable& x, const Variable& basis, const Tensor& mean) {
  check_floats(BasisProjection::name, {&x, &basis});
  check(x.shape().rank() == 2 && basis.shape().rank() == 3 && basis.shape()[2] == x.shape()[1], "[basis_projection] x {} but basis {}",
        x.shape().str(), basis.shape().str());
  check(!mean.defined() || (mean.shape() == Shape{x.shape()[1]} && mean.dtype() == master_of(x.dtype())),
        "[basis_projection] mean {} {} for x {} {}", name_of(mean.dtype()), mean.shape().str(), name_of(x.dtype()), x.shape().str());
  const int64_t experts = basis.shape()[0], rank = basis.shape()[1];
  const LinearDims dims{.rows = x.shape()[0], .in = x.shape()[1], .out = experts * rank};
  Tensor z = ctx.empty({dims.rows, experts, rank}, x.dtype());
  dispatch_compute(x.dtype(), BasisProjection::name, [&](auto tag) {
    using T = decltype(tag);
    const T* no_bias = nullptr;
    with_centered<T>(ctx, x.value, mean, [&](const T* centered) {
      on_device(
          ctx, tag, [&](auto) { cpu::linear_forward(dims, centered, basis.value.data<T>(), no_bias, z.data<T>()); },
          [&](auto) { cuda::linear_forward(ctx.stream, dims, centered, basis.value.data<T>(), no_bias, z.data<T>()); });
    });
  });
  return record(ctx, std::move(z), {&x, &basis}, BasisProjection{.dims = dims, .x = x.value, .basis = basis.value, .mean = mean});
}

}  // namespace ermoe
