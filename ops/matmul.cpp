#include "ops/matmul.h"

#include "ops/checks.h"
#include "ops/kernels/matmul.h"

namespace ermoe {
namespace {

void run(const ExecContext& ctx, const MatmulDims& dims, const Tensor& a, const Tensor& b, const GradSlot& c) {
  dispatch_compute(a.dtype(), "matmul", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::matmul(dims, a.data<T>(), b.data<T>(), c.dst.data<T>(), c.mode); },
        [&](auto) { cuda::matmul(ctx.stream, dims, a.data<T>(), b.data<T>(), c.dst.data<T>(), c.mode); });
  });
}

struct Matmul {
  static constexpr const char* name = "matmul";
  MatmulDims dims;
  Tensor a;  // (…, M, K), or (…, K, M) where transposed
  Tensor b;  // (…, K, N), or (…, N, K) where transposed

  /// With op(a) = A and op(b) = B: dA = dy Bᵀ and dB = Aᵀ dy; for an operand that was transposed, the transpose of that.
  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const auto& [batch, m, n, k, ta, tb] = dims;
    if (out.wants(0)) {
      if (ta == Trans::no)
        run(ctx, {batch, m, k, n, Trans::no, flip(tb)}, dy, b, out.into(0));
      else
        run(ctx, {batch, k, m, n, tb, Trans::yes}, b, dy, out.into(0));
    }
    if (out.wants(1)) {
      if (tb == Trans::no)
        run(ctx, {batch, k, n, m, flip(ta), Trans::no}, a, dy, out.into(1));
      else
        run(ctx, {batch, n, k, m, Trans::yes, ta}, dy, a, out.into(1));
    }
  }
};

MatmulDims dims_of(const Shape& a, const Shape& b, Trans ta, Trans tb) {
  bool fits = a.rank() >= 2 && a.rank() == b.rank();
  for (int axis = 0; fits && axis < a.rank() - 2; ++axis) fits = a[axis] == b[axis];
  fits = fits && a[ta == Trans::yes ? -2 : -1] == b[tb == Trans::yes ? -1 : -2];
  const auto mark = [](Trans t) { return t == Trans::yes ? " transposed" : ""; };
  check(fits, "[matmul] {}{} times {}{}", a.str(), mark(ta), b.str(), mark(tb));
  return {.batch = a.rows(-2),
          .m = a[ta == Trans::yes ? -1 : -2],
          .n = b[tb == Trans::yes ? -2 : -1],
          .k = a[ta == Trans::yes ? -2 : -1],
          .ta = ta,
          .tb = tb};
}

}  // namespace

Variable matmul(const ExecContext& ctx, const Variable& a, const Variable& b, Trans ta, Trans tb) {
  check_floats(Matmul::name, {&a, &b});
  check(b.defined(), "[matmul] {} times nothing", a.shape().str());
  const MatmulDims dims = dims_of(a.shape(), b.shape(), ta, tb);
  const Tensor y = ctx.empty(a.shape().with(-2, dims.m).with(-1, dims.n), a.dtype());
  run(ctx, dims, a.value, b.value, {y, Accumulate::overwrite});
  return record(ctx, y, {&a, &b}, Matmul{.dims = dims, .a = a.value, .b = b.value});
}

}  // namespace ermoe
