#include "ops/subspace_cosine.h"

#include "ops/basis_projection.h"
#include "ops/kernels/subspace_cosine.h"
#include "ops/optional_tensor.h"

namespace ermoe {
namespace {

struct NormRatio {
  static constexpr const char* name = "subspace_cosine";
  SubspaceCosineDims dims;
  Tensor z;      // (N, E, R)
  Tensor shift;  // (E, R), added to z on a GPU; or undefined
  Tensor x;      // (N, D)
  Tensor mean;   // (D) or undefined
  Tensor s;      // (N, E), the output

  void backward(const ExecContext& ctx, const Tensor& ds, GradWriter& out) const {
    dispatch_compute(x.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      const Master<T>* m = data_or_null<Master<T>>(mean);
      if (out.wants(0)) {
        const GradSlot dz = out.into(0);
        on_device(
            ctx, tag,
            [&](auto) {
              cpu::subspace_cosine_backward_z(dims, x.data<T>(), m, z.data<T>(), ds.data<Master<T>>(), dz.dst.data<T>(), dz.mode);
            },
            [&](auto) {
              cuda::subspace_cosine_backward_z(ctx.stream, dims, x.data<T>(), m, z.data<T>(), data_or_null<Master<T>>(shift),
                                               ds.data<Master<T>>(), dz.dst.data<T>(), dz.mode);
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
  const auto [z, shift] = basis_projection(ctx, x, basis, mean);
  const SubspaceCosineDims dims{z.shape()[0], z.shape()[1], z.shape()[2], x.shape()[1]};
  Tensor s = ctx.empty({dims.tokens, dims.experts}, master_of(x.dtype()));
  dispatch_compute(x.dtype(), NormRatio::name, [&](auto tag) {
    using T = decltype(tag);
    const T *xs = x.value.data<T>(), *zs = z.value.data<T>();
    const Master<T>*m = data_or_null<Master<T>>(mean), *add = data_or_null<Master<T>>(shift);
    on_device(
        ctx, tag, [&](auto) { cpu::subspace_cosine_forward(dims, xs, m, zs, s.data<Master<T>>()); },
        [&](auto) { cuda::subspace_cosine_forward(ctx.stream, dims, xs, m, zs, add, s.data<Master<T>>()); });
  });
  return record(ctx, s, {&z, &x}, NormRatio{.dims = dims, .z = z.value, .shift = shift, .x = x.value, .mean = mean, .s = s});
}

}  // namespace ermoe
