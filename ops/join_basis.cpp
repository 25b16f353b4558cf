#include "ops/join_basis.h"

#include "ops/kernels/join_basis.h"

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
    GradSlot slots[3];
    for (size_t i = 0; i < 3; ++i)
      if (out.wants(i)) slots[i] = out.into(i);
    dispatch_compute(dv.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      const auto at = [&](size_t i) { return slots[i].dst.defined() ? slots[i].dst.data<T>() : nullptr; };
      on_device(
          ctx, tag,
          [&](auto) { cpu::join_basis_backward(dims, dv.data<T>(), at(0), slots[0].mode, at(1), slots[1].mode, at(2), slots[2].mode); },
          [&](auto) {
            cuda::join_basis_backward(ctx.stream, dims, dv.data<T>(), at(0), slots[0].mode, at(1), slots[1].mode, at(2), slots[2].mode);
          });
    });
  }
};

}  // namespace

Variable join_basis(const ExecContext& ctx, const Variable& basis, const Variable& rest, const Variable& free) {
  const JoinBasisDims dims = shape_rule(basis.value, rest.value, free.value);
  Tensor v = ctx.empty({dims.E + dims.Ef, dims.D, dims.r}, basis.dtype(), "experts");
  dispatch_compute(v.dtype(), JoinBasis::name, [&](auto tag) {
    using T = decltype(tag);
    const T* free_data = free.defined() ? free.value.data<T>() : nullptr;
    on_device(
        ctx, tag, [&](auto) { cpu::join_basis_forward(dims, basis.value.data<T>(), rest.value.data<T>(), free_data, v.data<T>()); },
        [&](auto) { cuda::join_basis_forward(ctx.stream, dims, basis.value.data<T>(), rest.value.data<T>(), free_data, v.data<T>()); });
  });
  return record(ctx, std::move(v), {&basis, &rest, &free}, JoinBasis{.dims = dims});
}

}  // namespace ermoe
