#include "ops/basis_projection.h"

#include "ops/checks.h"
#include "ops/kernels/basis_projection.h"
#include "ops/kernels/column_sum.h"
#include "ops/kernels/linear.h"

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
      if (out.wants(1)) basis_gradient<T>(ctx, dz, out.into_master(1));
    });
  }

  /// db (+)= dzᵀ (x - mean), on a GPU as dzᵀ x - (Σ_n dz_n) meanᵀ.
  template <typename T>
  void basis_gradient(const ExecContext& ctx, const Tensor& dz, const GradSlot& db) const {
    on_device(
        ctx, T{},
        [&](auto) {
          with_centered<T>(ctx, x, mean,
                           [&](const T* centered) { cpu::linear_backward_w(dims, dz.data<T>(), centered, db.dst.data<T>(), db.mode); });
        },
        [&](auto) {
          using M = Master<T>;
          M* const to = db.dst.data<M>();
          cuda::linear_backward_w(ctx.stream, dims, dz.data<T>(), x.data<T>(), to, db.mode);
          if (!mean.defined()) return;
          const ColumnSumDims columns{.rows = dims.rows, .cols = dims.out, .stride = dims.out};
          const auto partials = ctx.workspace->borrow<M>(columns.partials()), sums = ctx.workspace->borrow<M>(dims.out);
          cuda::column_sum(ctx.stream, columns, dz.data<T>(), partials.data(), sums.data(), Accumulate::overwrite);
          cuda::center_gradient<T>(ctx.stream, dims, sums.data(), mean.data<M>(), to);
        });
  }
};

/// On a GPU: z with the projected mean as the product's bias. Returns the shift.
template <typename T>
Tensor project_on_gpu(const ExecContext& ctx, const BasisProjection& op, const Tensor& z) {
  const T *x = op.x.data<T>(), *basis = op.basis.data<T>(), *no_bias = nullptr;
  if (!op.mean.defined()) {
    cuda::linear_forward(ctx.stream, op.dims, x, basis, no_bias, z.data<T>());
    return {};
  }
  const auto bias = ctx.workspace->borrow<T>(op.dims.out);
  Tensor shift = ctx.empty({z.shape()[1], z.shape()[2]}, master_of(z.dtype()));
  cuda::center_bias(ctx.stream, op.dims, basis, op.mean.data<Master<T>>(), bias.data(), shift.data<Master<T>>());
  cuda::linear_forward(ctx.stream, op.dims, x, basis, static_cast<const T*>(bias.data()), z.data<T>());
  return z.dtype() == DType::f32 ? Tensor() : shift;
}

}  // namespace

Projection basis_projection(const ExecContext& ctx, const Variable& x, const Variable& basis, const Tensor& mean) {
  check_floats(BasisProjection::name, {&x, &basis});
  check(x.shape().rank() == 2 && basis.shape().rank() == 3 && basis.shape()[2] == x.shape()[1], "[basis_projection] x {} but basis {}",
        x.shape().str(), basis.shape().str());
  check(!mean.defined() || (mean.shape() == Shape{x.shape()[1]} && mean.dtype() == master_of(x.dtype())),
        "[basis_projection] mean {} {} for x {} {}", name_of(mean.dtype()), mean.shape().str(), name_of(x.dtype()), x.shape().str());
  const int64_t experts = basis.shape()[0], rank = basis.shape()[1];
  BasisProjection op{
      .dims = {.rows = x.shape()[0], .in = x.shape()[1], .out = experts * rank}, .x = x.value, .basis = basis.value, .mean = mean};
  Tensor z = ctx.empty({op.dims.rows, experts, rank}, x.dtype()), shift;
  dispatch_compute(x.dtype(), BasisProjection::name, [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag,
        [&](auto) {
          const T* no_bias = nullptr;
          with_centered<T>(ctx, x.value, mean,
                           [&](const T* centered) { cpu::linear_forward(op.dims, centered, basis.value.data<T>(), no_bias, z.data<T>()); });
        },
        [&](auto) { shift = project_on_gpu<T>(ctx, op, z); });
  });
  return {record(ctx, std::move(z), {&x, &basis}, std::move(op)), shift};
}

}  // namespace ermoe
