#include "ops/join_basis.h"

#include "ops/destination.h"
#include "ops/kernels/join_basis.h"
#include "ops/optional_tensor.h"

namespace ermoe {
namespace {

JoinBasisDims shape_rule(const Tensor& basis, const Tensor& rest, const Tensor& free) {
  check(basis.shape().rank() == 2 && rest.shape().rank() == 3, "[join_basis] basis {} wants (D, E*R), rest {} wants (E, D, r-R)",
        basis.shape().str(), rest.shape().str());
  JoinBasisDims dims;
  dims.E = rest.shape()[0];
  dims.D = rest.shape()[1];
  check(dims.E > 0 && basis.shape()[0] == dims.D && basis.shape()[1] % dims.E == 0, "[join_basis] basis {} does not fit rest {}",
        basis.shape().str(), rest.shape().str());
  dims.R = basis.shape()[1] / dims.E;
  dims.r = dims.R + rest.shape()[2];
  if (free.defined()) {
    dims.Ef = free.shape()[0];
    check(free.shape() == Shape({dims.Ef, dims.D, dims.r}), "[join_basis] free {} but D={} r={}", free.shape().str(), dims.D, dims.r);
  }
  return dims;
}

struct JoinBasis {
  static constexpr const char* name = "join_basis";
  JoinBasisDims dims;

  void backward(const ExecContext& ctx, const Tensor& dv, GradWriter& out) const {
    dispatch_float(dv.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      const Destination<T> dbasis = destination<T>(out, 0), drest = destination<T>(out, 1), dfree = destination<T>(out, 2);
      on_device(
          ctx, tag, [&](auto) { cpu::join_basis_backward(dims, dv.data<T>(), dbasis, drest, dfree); },
          [&](auto) { cuda::join_basis_backward(ctx.stream, dims, dv.data<T>(), dbasis, drest, dfree); });
    });
  }
};

}  // namespace

Variable join_basis(const ExecContext& ctx, const Variable& basis, const Variable& rest, const Variable& free) {
  const JoinBasisDims dims = shape_rule(basis.value, rest.value, free.value);
  Tensor v = ctx.empty({dims.E + dims.Ef, dims.D, dims.r}, basis.dtype(), "experts");
  dispatch_float(v.dtype(), JoinBasis::name, [&](auto tag) {
    using T = decltype(tag);
    const T* free_data = data_or_null<T>(free.value);
    on_device(
        ctx, tag, [&](auto) { cpu::join_basis_forward(dims, basis.value.data<T>(), rest.value.data<T>(), free_data, v.data<T>()); },
        [&](auto) { cuda::join_basis_forward(ctx.stream, dims, basis.value.data<T>(), rest.value.data<T>(), free_data, v.data<T>()); });
  });
  return record(ctx, std::move(v), {&basis, &rest, &free}, JoinBasis{.dims = dims});
}

}  // namespace ermoe
