#include "ops/multiply.h"

#include "ops/checks.h"
#include "ops/kernels/multiply.h"

namespace ermoe {
namespace {

/// y (+)= a · b.
void product(const ExecContext& ctx, const Tensor& a, const Tensor& b, const Tensor& y, Accumulate mode) {
  dispatch_compute(a.dtype(), "multiply", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::multiply(a.numel(), a.data<T>(), b.data<T>(), y.data<T>(), mode); },
        [&](auto) { cuda::multiply(ctx.stream, a.numel(), a.data<T>(), b.data<T>(), y.data<T>(), mode); });
  });
}

struct Multiply {
  static constexpr const char* name = "multiply";
  Tensor a, b;

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    for (const size_t i : {size_t{0}, size_t{1}}) {
      if (!out.wants(i)) continue;
      const GradSlot slot = out.into(i);
      product(ctx, dy, i == 0 ? b : a, slot.dst, slot.mode);
    }
  }
};

}  // namespace

Variable multiply(const ExecContext& ctx, const Variable& a, const Variable& b) {
  check_floats(Multiply::name, {&a, &b});
  check(b.defined() && a.shape() == b.shape(), "[multiply] {} and {}", a.shape().str(), b.shape().str());
  Tensor y = ctx.empty(a.shape(), a.dtype());
  product(ctx, a.value, b.value, y, Accumulate::overwrite);
  return record(ctx, std::move(y), {&a, &b}, Multiply{.a = a.value, .b = b.value});
}

}  // namespace ermoe
