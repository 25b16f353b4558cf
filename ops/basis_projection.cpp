#include "ops/basis_projection.h"

#include "ops/checks.h"
#include "ops/kernels/basis_projection.h"
#include "ops/kernels/column_sum.h"

namespace ermoe {
namespace {

/// On a CPU. Calls fn(pointer to x - mean), which is x itself without a mean and scratch memory with one.
template <typename T, typename Fn>
void with_centered(const ExecContext& ctx, const Tensor& x, const Tensor& mean, Fn&& fn) {
  if (!mean.defined()) return fn(static_cast<const T*>(x.data<T>()));
  const auto centered = ctx.workspace->borrow<T>(x.numel());
  cpu::center_rows(CenterRowsDims{x.shape()[0], x.shape()[1]}, x.data<T>(), mean.data<T>(), centered.data());
  fn(static_cast<const T*>(centered.data()));
}

/// On a GPU: z with the projected mean as the product's bias. Returns the shift.
template <typename T>
Tensor project_on_gpu(const ExecContext& ctx, const BasisProducts& p, const Tensor& z) {
  const T *x = p.x.data<T>(), *basis = p.basis.data<T>(), *no_bias = nullptr;
  if (!p.mean.defined()) {
    cuda::linear_forward(ctx.stream, p.dims, x, basis, no_bias, z.data<T>());
    return {};
  }
  const auto bias = ctx.workspace->borrow<T>(p.dims.out);
  Tensor shift = ctx.empty({p.basis.shape()[0], p.basis.shape()[1]}, master_of(z.dtype()));
  cuda::center_bias(ctx.stream, p.dims, basis, p.mean.data<Master<T>>(), bias.data(), shift.data<Master<T>>());
  cuda::linear_forward(ctx.stream, p.dims, x, basis, static_cast<const T*>(bias.data()), z.data<T>());
  return z.dtype() == DType::f32 ? Tensor() : shift;
}

struct BasisProjection {
  static constexpr const char* name = "basis_projection";
  BasisProducts products;

  void backward(const ExecContext& ctx, const Tensor& dz, GradWriter& out) const {
    if (out.wants(0)) {
      const GradSlot dx = out.into(0);
      products.input_gradient(ctx, dz, dx.dst, dx.mode);
    }
    if (out.wants(1)) {
      const GradSlot db = out.into_master(1);
      products.basis_gradient(ctx, dz, {}, db.dst, db.mode);
    }
  }
};

}  // namespace

BasisProducts BasisProducts::of(const char* op, const Tensor& x, const Tensor& basis, const Tensor& mean) {
  check(x.shape().rank() == 2 && basis.shape().rank() == 3 && basis.shape()[2] == x.shape()[1], "[{}] x {} but basis {}", op,
        x.shape().str(), basis.shape().str());
  check(!mean.defined() || (mean.shape() == Shape{x.shape()[1]} && mean.dtype() == master_of(x.dtype())), "[{}] mean {} {} for x {} {}", op,
        name_of(mean.dtype()), mean.shape().str(), name_of(x.dtype()), x.shape().str());
  return {
      .dims = {.rows = x.shape()[0], .in = x.shape()[1], .out = basis.shape()[0] * basis.shape()[1]}, .x = x, .basis = basis, .mean = mean};
}

Tensor BasisProducts::forward(const ExecContext& ctx, const Tensor& z) const {
  Tensor shift;
  dispatch_compute(x.dtype(), "basis_projection", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag,
        [&](auto) {
          const T* no_bias = nullptr;
          with_centered<T>(ctx, x, mean,
                           [&](const T* centered) { cpu::linear_forward(dims, centered, basis.data<T>(), no_bias, z.data<T>()); });
        },
        [&](auto) { shift = project_on_gpu<T>(ctx, *this, z); });
  });
  return shift;
}

void BasisProducts::input_gradient(const ExecContext& ctx, const Tensor& dz, const Tensor& dx, Accumulate mode) const {
  dispatch_compute(x.dtype(), "basis_projection", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::linear_backward_x(dims, dz.data<T>(), basis.data<T>(), dx.data<T>(), mode); },
        [&](auto) { cuda::linear_backward_x(ctx.stream, dims, dz.data<T>(), basis.data<T>(), dx.data<T>(), mode); });
  });
}

void BasisProducts::basis_gradient(const ExecContext& ctx, const Tensor& dz, const Tensor& sums, const Tensor& db, Accumulate mode) const {
  dispatch_compute(x.dtype(), "basis_projection", [&](auto tag) {
    using T = decltype(tag);
    using M = Master<T>;
    on_device(
        ctx, tag,
        [&](auto) {
          with_centered<T>(ctx, x, mean,
                           [&](const T* centered) { cpu::linear_backward_w(dims, dz.data<T>(), centered, db.data<T>(), mode); });
        },
        [&](auto) {
          cuda::linear_backward_w(ctx.stream, dims, dz.data<T>(), x.data<T>(), db.data<M>(), mode);
          if (!mean.defined()) return;
          if (sums.defined()) return cuda::center_gradient<T>(ctx.stream, dims, sums.data<M>(), mean.data<M>(), db.data<M>());
          const ColumnSumDims columns{.rows = dims.rows, .cols = dims.out, .stride = dims.out};
          const auto partials = ctx.workspace->borrow<M>(columns.partials()), made = ctx.workspace->borrow<M>(dims.out);
          cuda::column_sum(ctx.stream, columns, dz.data<T>(), partials.data(), made.data(), Accumulate::overwrite);
          cuda::center_gradient<T>(ctx.stream, dims, made.data(), mean.data<M>(), db.data<M>());
        });
  });
}

Projection basis_projection(const ExecContext& ctx, const Variable& x, const Variable& basis, const Tensor& mean) {
  check_floats(BasisProjection::name, {&x, &basis});
  BasisProjection op{BasisProducts::of(BasisProjection::name, x.value, basis.value, mean)};
  Tensor z = ctx.empty(op.products.coordinates(), x.dtype());
  const Tensor shift = op.products.forward(ctx, z);
  return {record(ctx, std::move(z), {&x, &basis}, std::move(op)), shift};
}

}  // namespace ermoe
