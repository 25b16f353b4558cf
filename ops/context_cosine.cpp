#include "ops/context_cosine.h"

#include "ops/basis_projection.h"
#include "ops/checks.h"
#include "ops/kernels/cosine.h"
#include "ops/optional_tensor.h"

namespace ermoe {
namespace {

/// What one side of the cosine saves.
struct Side {
  BasisProducts products;
  Tensor z;      // (N, E, R)
  Tensor shift;  // (E, R) or undefined

  template <typename T>
  CosineOperand<T> operand() const {
    return {z.data<T>(), data_or_null<Master<T>>(shift)};
  }
};

struct ContextCosine {
  static constexpr const char* name = "context_cosine";
  CosineDims dims;
  Side own, context;

  /// Both sides share a pass over the coordinates, from which their gradients' sums for the centred basis come along.
  void backward(const ExecContext& ctx, const Tensor& ds, GradWriter& out) const {
    const DType dtype = own.z.dtype();
    const Tensor d_own = ctx.empty(own.z.shape(), dtype), d_context = ctx.empty(own.z.shape(), dtype);
    const Shape sums_shape{own.z.shape()[1], own.z.shape()[2]};
    const Tensor own_sums = ctx.empty(sums_shape, master_of(dtype)), context_sums = ctx.empty(sums_shape, master_of(dtype));
    dispatch_compute(dtype, name, [&](auto tag) {
      using T = decltype(tag);
      using M = Master<T>;
      const auto left = own.operand<T>(), right = context.operand<T>();
      on_device(
          ctx, tag,
          [&](auto) {
            cpu::cosine_backward(dims, left, right, ds.data<M>(), {d_own.data<T>(), Accumulate::overwrite},
                                 {d_context.data<T>(), Accumulate::overwrite});
          },
          [&](auto) {
            const auto scratch = ctx.workspace->borrow<float>(cuda::cosine_sums_scratch(ctx.stream, dims));
            cuda::cosine_backward_sums(ctx.stream, dims, left, right, ds.data<M>(), d_own.data<T>(), d_context.data<T>(),
                                       own_sums.data<M>(), context_sums.data<M>(), scratch.data());
          });
    });
    input_gradient(ctx, own, d_own, out, 0);
    input_gradient(ctx, context, d_context, out, 1);
    if (!out.wants(2)) return;
    const GradSlot basis = out.into_master(2);
    own.products.basis_gradient(ctx, d_own, own_sums, basis.dst, basis.mode);
    context.products.basis_gradient(ctx, d_context, context_sums, basis.dst, Accumulate::add);
  }

  static void input_gradient(const ExecContext& ctx, const Side& side, const Tensor& dz, GradWriter& out, size_t i) {
    if (!out.wants(i)) return;
    const GradSlot slot = out.into(i);
    side.products.input_gradient(ctx, dz, slot.dst, slot.mode);
  }
};

Side side_of(const ExecContext& ctx, const Tensor& x, const Tensor& basis, const Tensor& mean) {
  Side side{.products = BasisProducts::of(ContextCosine::name, x, basis, mean), .z = {}, .shift = {}};
  side.z = ctx.empty(side.products.coordinates(), x.dtype());
  side.shift = side.products.forward(ctx, side.z);
  return side;
}

}  // namespace

Variable context_cosine(const ExecContext& ctx, const Variable& x, const Variable& c, const Variable& basis, const Tensor& mean_x,
                        const Tensor& mean_c) {
  check_floats(ContextCosine::name, {&x, &c, &basis});
  check(x.shape() == c.shape(), "[context_cosine] x {} but context {}", x.shape().str(), c.shape().str());
  ContextCosine op{.dims = {}, .own = side_of(ctx, x.value, basis.value, mean_x), .context = side_of(ctx, c.value, basis.value, mean_c)};
  const Shape& shape = op.own.z.shape();
  op.dims = {.pairs = shape[0] * shape[1], .width = shape[2], .shifts = shape[1]};
  Tensor s = ctx.empty({shape[0], shape[1]}, master_of(x.dtype()));
  dispatch_compute(x.dtype(), ContextCosine::name, [&](auto tag) {
    using T = decltype(tag);
    const auto left = op.own.operand<T>(), right = op.context.operand<T>();
    on_device(
        ctx, tag, [&](auto) { cpu::cosine_forward(op.dims, left, right, s.data<Master<T>>()); },
        [&](auto) { cuda::cosine_forward(ctx.stream, op.dims, left, right, s.data<Master<T>>()); });
  });
  return record(ctx, std::move(s), {&x, &c, &basis}, std::move(op));
}

}  // namespace ermoe
