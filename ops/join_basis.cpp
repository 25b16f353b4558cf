#include "ops/join_basis.h"

#include "ops/destination.h"
#include "ops/kernels/join_basis.h"
#include "ops/optional_tensor.h"

namespace ermoe {
namespace {

JoinBasisDims shape_rule(const Tensor& basis, const Tensor& rest, const Tensor& free, BasisPart part) {
  check(basis.shape().rank() == 2 && rest.shape().rank() == 3, "[join_basis] basis {} wants (D, E*R), rest {} wants (E, D, r-R)",
        basis.shape().str(), rest.shape().str());
  JoinBasisDims dims;
  dims.E = rest.shape()[0];
  dims.D = rest.shape()[1];
  dims.first = part.first;
  dims.all = part.of_all(dims.E);
  check(dims.all > 0 && basis.shape()[0] == dims.D && basis.shape()[1] % dims.all == 0 && dims.first + dims.E <= dims.all,
        "[join_basis] basis {} does not fit rest {}, experts {} on of {}", basis.shape().str(), rest.shape().str(), dims.first, dims.all);
  dims.R = basis.shape()[1] / dims.all;
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

  /// Zeros first where some of its columns get nothing.
  template <typename T>
  Destination<T> basis_destination(GradWriter& out) const {
    if (!out.wants(0)) return {};
    GradSlot slot = out.into(0);
    if (dims.E < dims.all && slot.mode == Accumulate::overwrite) {
      zero(slot.dst);
      slot.mode = Accumulate::add;
    }
    return {slot.dst.data<T>(), slot.mode};
  }

  void backward(const ExecContext& ctx, const Tensor& dv, GradWriter& out) const {
    dispatch_float(dv.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      const Destination<T> dbasis = basis_destination<T>(out), drest = destination<T>(out, 1), dfree = destination<T>(out, 2);
      on_device(
          ctx, tag, [&](auto) { cpu::join_basis_backward(dims, dv.data<T>(), dbasis, drest, dfree); },
          [&](auto) { cuda::join_basis_backward(ctx.stream, dims, dv.data<T>(), dbasis, drest, dfree); });
    });
  }
};

}  // namespace

Variable join_basis(const ExecContext& ctx, const Variable& basis, const Variable& rest, const Variable& free, BasisPart part) {
  const JoinBasisDims dims = shape_rule(basis.value, rest.value, free.value, part);
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
