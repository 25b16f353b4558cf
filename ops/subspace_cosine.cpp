#include "ops/subspace_cosine.h"

#include "ops/basis_projection.h"
#include "ops/kernels/subspace_cosine.h"

namespace ermoe {
namespace {

struct NormRatio {
  static constexpr const char* name = "subspace_cosine";
  SubspaceCosineDims dims;
  Tensor z;     // (N, E, R)
  Tensor x;     // (N, D)
  Tensor mean;  // (D) or undefined
  Tensor s;     // (N, E), the output

  void backward(const ExecContext& ctx, const Tensor& ds, GradWriter& out) const {
    dispatch_compute(x.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      const Master<T>* m = mean.defined() ? mean.data<Master<T>>() : nullptr;
      if (out.wants(0)) {
        const GradSlot dz = out.into(0);
        on_device(
            ctx, tag,
            [&](auto) {
              cpu::subspace_cosine_backward_z(dims, x.data<T>(), m, z.data<T>(), ds.data<Master<T>>(), dz.dst.data<T>(), dz.mode);
            },
            [&](auto) {
              cuda::subspace_cosine_backward_z(ctx.stream, dims, x.data<T>(), m, z.data<T>(), ds.data<Master<T>>(), dz.dst.data<T>(),
                                               dz.mode);
            });
      }
      if (out.wants(1)) {
        const GradSlot dx = out.into(1);
        on_device(
            ctx, tag,
            [&](auto) {
              cpu::subspace_cosine_backward_x(dims, x.data<T>(), m, s.data<Master<T>>(), ds.data<Master<T>>(), dx.dst.data<T>(), dx.mode);
            },
            [&](auto) {
              cuda::subspace_cosine_backward_x(ctx.stream, dims, x.data<T>(), m, s.data<Master<T>>(), ds.data<Master<T>>(),
                                               dx.dst.data<T>(), dx.mode);
            });
      }
    });
  }
};

}  // namespace

Variable subspace_cosine(const ExecContext& ctx, const Variable& x, const Variable& basis, const Tensor& mean) {
  const Variable z = basis_projection(ctx, x, basis, mean);
  const SubspaceCosineDims dims{z.shape()[0], z.shape()[1], z.shape()[2], x.shape()[1]};
  Tensor s = ctx.empty({dims.tokens, dims.experts}, master_of(x.dtype()));
  dispatch_compute(x.dtype(), NormRatio::name, [&](auto tag) {
    using T = decltype(tag);
    const Master<T>* m = mean.defined() ? mean.data<Master<T>>() : nullptr;
    on_device(
        ctx, tag, [&](auto) { cpu::subspace_cosine_forward(dims, x.value.data<T>(), m, z.value.data<T>(), s.data<Master<T>>()); },
        [&](auto) { cuda::subspace_cosine_forward(ctx.stream, dims, x.value.data<T>(), m, z.value.data<T>(), s.data<Master<T>>()); });
  });
  return record(ctx, s, {&z, &x}, NormRatio{.dims = dims, .z = z.value, .x = x.value, .mean = mean, .s = s});
}

}  // namespace ermoe
