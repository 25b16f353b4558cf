#include "ops/leading_basis.h"

#include "ops/kernels/leading_basis.h"

namespace ermoe {
namespace {

struct LeadingBasis {
  static constexpr const char* name = "leading_basis";
  LeadingBasisDims dims;

  void backward(const ExecContext& ctx, const Tensor& dbasis, GradWriter& out) const {
    const GradSlot dv = out.into(0);
    dispatch_compute(dbasis.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      on_device(
          ctx, tag, [&](auto) { cpu::leading_basis_backward(dims, dbasis.data<T>(), dv.dst.data<Master<T>>(), dv.mode); },
          [&](auto) { cuda::leading_basis_backward(ctx.stream, dims, dbasis.data<T>(), dv.dst.data<Master<T>>(), dv.mode); });
    });
  }
};

}  // namespace

Variable leading_basis(const ExecContext& ctx, const Variable& v, int64_t rank, std::optional<DType> dtype) {
  check(v.shape().rank() == 3 && rank >= 1 && rank <= v.shape()[2], "[leading_basis] rank {} of v {}", rank, v.shape().str());
  const LeadingBasisDims dims{.experts = v.shape()[0], .width = v.shape()[1], .columns = v.shape()[2], .rank = rank};
  Tensor basis = ctx.empty({dims.experts, dims.rank, dims.width}, dtype.value_or(v.dtype()));
  dispatch_compute(basis.dtype(), LeadingBasis::name, [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::leading_basis_forward(dims, v.value.data<Master<T>>(), basis.data<T>()); },
        [&](auto) { cuda::leading_basis_forward(ctx.stream, dims, v.value.data<Master<T>>(), basis.data<T>()); });
  });
  return record(ctx, std::move(basis), {&v}, LeadingBasis{.dims = dims});
}

}  // namespace ermoe
