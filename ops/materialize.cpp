#include "ops/materialize.h"

#include "ops/checks.h"
#include "ops/kernels/materialize.h"

namespace ermoe {
namespace {

struct Materialize {
  static constexpr const char* name = "materialize";
  MaterializeDims dims;
  Tensor u;  // (E, m, r)
  Tensor s;  // (E, r)
  Tensor v;  // (E, n, r)

  void backward(const ExecContext& ctx, const Tensor& dw, GradWriter& out) const {
    dispatch_compute(u.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      const auto scratch = ctx.workspace->borrow<T>(u.numel());
      if (out.wants(0) || out.wants(1)) backward_left<T>(ctx, dw, scratch.data(), out);
      if (!out.wants(2)) return;
      const GradSlot dv = out.into(2);
      on_device(
          ctx, tag,
          [&](auto) {
            cpu::materialize_backward_v(dims, u.data<T>(), s.data<T>(), dw.data<T>(), scratch.data(), dv.dst.data<T>(), dv.mode);
          },
          [&](auto) {
            cuda::materialize_backward_v(ctx.stream, dims, u.data<T>(), s.data<T>(), dw.data<T>(), scratch.data(), dv.dst.data<T>(),
                                         dv.mode);
          });
    });
  }

  /// Gradients of u and s, from the product that they share.
  template <typename T>
  void backward_left(const ExecContext& ctx, const Tensor& dw, T* product, GradWriter& out) const {
    on_device(
        ctx, T{}, [&](auto) { cpu::materialize_backward_product(dims, v.data<T>(), dw.data<T>(), product); },
        [&](auto) { cuda::materialize_backward_product(ctx.stream, dims, v.data<T>(), dw.data<T>(), product); });
    if (out.wants(0)) {
      const GradSlot du = out.into(0);
      on_device(
          ctx, T{}, [&](auto) { cpu::materialize_backward_u(dims, s.data<T>(), product, du.dst.data<T>(), du.mode); },
          [&](auto) { cuda::materialize_backward_u(ctx.stream, dims, s.data<T>(), product, du.dst.data<T>(), du.mode); });
    }
    if (out.wants(1)) {
      const GradSlot ds = out.into(1);
      on_device(
          ctx, T{}, [&](auto) { cpu::materialize_backward_s(dims, u.data<T>(), product, ds.dst.data<T>(), ds.mode); },
          [&](auto) { cuda::materialize_backward_s(ctx.stream, dims, u.data<T>(), product, ds.dst.data<T>(), ds.mode); });
    }
  }
};

}  // namespace

Variable materialize(const ExecContext& ctx, const Variable& u, const Variable& s, const Variable& v) {
  check_floats(Materialize::name, {&u, &s, &v});
  check(u.shape().rank() == 3 && v.shape().rank() == 3 && u.shape()[0] == v.shape()[0] && u.shape()[2] == v.shape()[2] &&
            s.shape() == Shape({u.shape()[0], u.shape()[2]}),
        "[materialize] u {}, s {} and v {}", u.shape().str(), s.shape().str(), v.shape().str());
  const MaterializeDims dims{.experts = u.shape()[0], .rows = u.shape()[1], .cols = v.shape()[1], .rank = u.shape()[2]};
  Tensor w = ctx.empty({dims.experts, dims.rows, dims.cols}, u.dtype());
  dispatch_compute(u.dtype(), Materialize::name, [&](auto tag) {
    using T = decltype(tag);
    const auto scratch = ctx.workspace->borrow<T>(u.value.numel());
    on_device(
        ctx, tag,
        [&](auto) { cpu::materialize_forward(dims, u.value.data<T>(), s.value.data<T>(), v.value.data<T>(), scratch.data(), w.data<T>()); },
        [&](auto) {
          cuda::materialize_forward(ctx.stream, dims, u.value.data<T>(), s.value.data<T>(), v.value.data<T>(), scratch.data(), w.data<T>());
        });
  });
  return record(ctx, std::move(w), {&u, &s, &v}, Materialize{.dims = dims, .u = u.value, .s = s.value, .v = v.value});
}

}  // namespace ermoe
