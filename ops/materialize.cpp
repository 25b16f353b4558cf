#include "ops/materialize.h"

#include "core/flat.h"
#include "ops/checks.h"
#include "ops/destination.h"
#include "ops/kernels/materialize.h"

namespace ermoe {
namespace {

/// w's gradient in the factors' dtype, in which ranks and micro-batches add it up.
Tensor widened(const ExecContext& ctx, const Tensor& dw, DType dtype) {
  if (dw.dtype() == dtype) return dw;
  Tensor wide = ctx.empty(dw.shape(), dtype, "gradient");
  convert(dw, wide);
  return wide;
}

struct Materialize {
  static constexpr const char* name = "materialize";
  MaterializeDims dims;
  DType dtype;  // of w
  Tensor u;     // (E, m, r)
  Tensor s;     // (E, r)
  Tensor v;     // (E, n, r)

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const Tensor dw = widened(ctx, dy, u.dtype());
    dispatch_compute(dtype, name, [&](auto tag) {
      using T = decltype(tag);
      using M = Master<T>;
      const auto products = ctx.workspace->borrow<M>(dims.products());
      const Destination<M> du = destination<M>(out, 0), ds = destination<M>(out, 1), dv = destination<M>(out, 2);
      on_device(
          ctx, tag,
          [&](auto) {
            cpu::materialize_backward<T>(dims, u.data<M>(), s.data<M>(), v.data<M>(), dw.data<M>(), products.data(), du, ds, dv);
          },
          [&](auto) {
            const auto narrowed = ctx.workspace->borrow<T>(cuda::materialize_narrowed<T>(dims));
            cuda::materialize_backward<T>(ctx.stream, dims, u.data<M>(), s.data<M>(), v.data<M>(), dw.data<M>(), products.data(),
                                          narrowed.data(), du, ds, dv);
          });
    });
  }
};

}  // namespace

Variable materialize(const ExecContext& ctx, const Variable& u, const Variable& s, const Variable& v, const Tensor& into) {
  check_floats(Materialize::name, {&u, &s, &v});
  check(u.shape().rank() == 3 && v.shape().rank() == 3 && u.shape()[0] == v.shape()[0] && u.shape()[2] == v.shape()[2] &&
            s.shape() == Shape({u.shape()[0], u.shape()[2]}),
        "[materialize] u {}, s {} and v {}", u.shape().str(), s.shape().str(), v.shape().str());
  const MaterializeDims dims{.experts = u.shape()[0], .rows = u.shape()[1], .cols = v.shape()[1], .rank = u.shape()[2]};
  const Shape shape = {dims.experts, dims.rows, dims.cols};
  check(!into.defined() || into.shape() == shape, "[materialize] w {} into {}", shape.str(), into.shape().str());
  const Tensor w = into.defined() ? into : ctx.empty(shape, u.dtype());
  dispatch_compute(w.dtype(), Materialize::name, [&](auto tag) {
    using T = decltype(tag);
    using M = Master<T>;
    const M *us = u.value.data<M>(), *ss = s.value.data<M>(), *vs = v.value.data<M>();
    const auto products = ctx.workspace->borrow<M>(dims.products());
    on_device(
        ctx, tag, [&](auto) { cpu::materialize_forward<T>(dims, us, ss, vs, products.data(), w.data<T>()); },
        [&](auto) {
          const auto narrowed = ctx.workspace->borrow<T>(cuda::materialize_narrowed<T>(dims));
          cuda::materialize_forward<T>(ctx.stream, dims, us, ss, vs, products.data(), narrowed.data(), w.data<T>());
        });
  });
  return record(ctx, w, {&u, &s, &v}, Materialize{.dims = dims, .dtype = w.dtype(), .u = u.value, .s = s.value, .v = v.value});
}

}  // namespace ermoe
