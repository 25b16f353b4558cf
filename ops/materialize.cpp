#include "ops/materialize.h"

#include "core/flat.h"
#include "ops/checks.h"
#include "ops/destination.h"
#include "ops/kernels/materialize.h"
#include "ops/optional_tensor.h"

namespace ermoe {
namespace {

struct Materialize {
  static constexpr const char* name = "materialize";
  MaterializeDims dims;
  DType dtype;   // of w
  Tensor small;  // (E, a, r)
  Tensor s;      // (E, r)
  Tensor large;  // (E, b, r)
  Tensor twin;   // (E, b, r) of w's dtype, or undefined

  void forward(const ExecContext& ctx, const Tensor& w) const {
    dispatch_compute(dtype, name, [&](auto tag) {
      using T = decltype(tag);
      using M = Master<T>;
      const auto products = ctx.workspace->borrow<M>(dims.products());
      on_device(
          ctx, tag,
          [&](auto) { cpu::materialize_forward<T>(dims, small.data<M>(), s.data<M>(), large.data<M>(), products.data(), w.data<T>()); },
          [&](auto) {
            const T* copy = data_or_null<T>(twin);
            const auto narrowed = ctx.workspace->borrow<T>(cuda::materialize_forward_narrowed(dims, copy));
            cuda::materialize_forward<T>(ctx.stream, dims, small.data<M>(), s.data<M>(), large.data<M>(), copy, products.data(),
                                         narrowed.data(), w.data<T>());
          });
    });
  }

  void backward(const ExecContext& ctx, const Tensor& dw, GradWriter& out) const {
    const size_t of_small = dims.w == Trans::no ? 0 : 2, of_large = 2 - of_small;
    dispatch_compute(dtype, name, [&](auto tag) {
      using T = decltype(tag);
      using M = Master<T>;
      const auto products = ctx.workspace->borrow<M>(dims.products());
      const Destination<M> dsmall = destination<M>(out, of_small), ds = destination<M>(out, 1);
      const GradSlot dlarge = out.wants(of_large) ? out.into(of_large) : GradSlot{};
      on_device(
          ctx, tag,
          [&](auto) {
            cpu::materialize_backward<T>(dims, small.data<M>(), s.data<M>(), large.data<M>(), dw.data<M>(), products.data(), dsmall, ds,
                                         {data_or_null<M>(dlarge.dst), dlarge.mode});
          },
          [&](auto) {
            const auto run = [&]<typename G, typename L>(const G* upper, L* lower) {
              const T* copy = data_or_null<T>(twin);
              const auto narrowed = ctx.workspace->borrow<T>(cuda::materialize_backward_narrowed(dims, copy, upper));
              cuda::materialize_backward(ctx.stream, dims, small.data<M>(), s.data<M>(), large.data<M>(), copy, upper, products.data(),
                                         narrowed.data(), dsmall, ds, Destination<L>{lower, dlarge.mode});
            };
            const auto with_large = [&](const auto* upper) {
              if (dlarge.dst.defined() && dlarge.dst.dtype() == dtype) return run(upper, dlarge.dst.data<T>());
              run(upper, data_or_null<M>(dlarge.dst));
            };
            if (dw.dtype() == dtype)
              with_large(dw.data<T>());
            else
              with_large(dw.data<M>());
          });
    });
  }
};

}  // namespace

Variable materialize(const ExecContext& ctx, const Variable& u, const Variable& s, const Variable& v, const Tensor& into,
                     const FactorTwins& twins) {
  check_floats(Materialize::name, {&u, &s, &v});
  check(u.shape().rank() == 3 && v.shape().rank() == 3 && u.shape()[0] == v.shape()[0] && u.shape()[2] == v.shape()[2] &&
            s.shape() == Shape({u.shape()[0], u.shape()[2]}),
        "[materialize] u {}, s {} and v {}", u.shape().str(), s.shape().str(), v.shape().str());
  const int64_t experts = u.shape()[0], m = u.shape()[1], n = v.shape()[1], r = u.shape()[2];
  const Shape shape = {experts, m, n};
  check(!into.defined() || into.shape() == shape, "[materialize] w {} into {}", shape.str(), into.shape().str());
  check_twin(Materialize::name, "u", u.value, twins.u);
  check_twin(Materialize::name, "v", v.value, twins.v);
  const Tensor w = into.defined() ? into : ctx.empty(shape, u.dtype());

  const bool u_small = m <= n;  // of equal ones u: where both are one variable, its gradient is written in the order u, s, v
  const Tensor twin = w.dtype() == DType::bf16 ? (u_small ? twins.v : twins.u) : Tensor();
  Materialize op{
      .dims = {.experts = experts, .small = u_small ? m : n, .large = u_small ? n : m, .rank = r, .w = u_small ? Trans::no : Trans::yes},
      .dtype = w.dtype(),
      .small = u_small ? u.value : v.value,
      .s = s.value,
      .large = u_small ? v.value : u.value,
      .twin = twin};
  op.forward(ctx, w);
  return record(ctx, w, {&u, &s, &v}, std::move(op));
}

}  // namespace ermoe
