#include "ops/cosine.h"

#include "ops/checks.h"
#include "ops/destination.h"
#include "ops/kernels/cosine.h"
#include "ops/optional_tensor.h"

namespace ermoe {
namespace {

struct Cosine {
  static constexpr const char* name = "cosine";
  CosineDims dims;
  Tensor a, b;              // (…, R)
  Tensor shift_a, shift_b;  // (S, R) or undefined

  template <typename T>
  static CosineOperand<T> operand(const Tensor& v, const Tensor& shift) {
    return {v.data<T>(), data_or_null<Master<T>>(shift)};
  }

  void backward(const ExecContext& ctx, const Tensor& ds, GradWriter& out) const {
    dispatch_compute(a.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      const auto left = operand<T>(a, shift_a), right = operand<T>(b, shift_b);
      const Destination<T> da = destination<T>(out, 0), db = destination<T>(out, 1);
      on_device(
          ctx, tag, [&](auto) { cpu::cosine_backward(dims, left, right, ds.data<Master<T>>(), da, db); },
          [&](auto) { cuda::cosine_backward(ctx.stream, dims, left, right, ds.data<Master<T>>(), da, db); });
    });
  }
};

void check_shift(const Tensor& shift, const Variable& v) {
  check(!shift.defined() ||
            (v.shape().rank() >= 2 && shift.shape() == Shape({v.shape()[-2], v.shape()[-1]}) && shift.dtype() == master_of(v.dtype())),
        "[cosine] shift {} {} for vectors {} {}", name_of(shift.dtype()), shift.shape().str(), name_of(v.dtype()), v.shape().str());
}

}  // namespace

Variable cosine(const ExecContext& ctx, const Variable& a, const Variable& b, const Tensor& shift_a, const Tensor& shift_b) {
  check_floats(Cosine::name, {&a, &b});
  check(a.shape() == b.shape() && a.shape().rank() >= 1, "[cosine] a {} but b {}", a.shape().str(), b.shape().str());
  check_shift(shift_a, a);
  check_shift(shift_b, b);
  const CosineDims dims{.pairs = a.shape().rows(), .width = a.shape()[-1], .shifts = a.shape().rank() >= 2 ? a.shape()[-2] : 1};
  Tensor s = ctx.empty(Shape(std::span(a.shape().begin(), a.shape().end() - 1)), master_of(a.dtype()));
  Cosine op{.dims = dims, .a = a.value, .b = b.value, .shift_a = shift_a, .shift_b = shift_b};
  dispatch_compute(a.dtype(), Cosine::name, [&](auto tag) {
    using T = decltype(tag);
    const auto left = Cosine::operand<T>(op.a, shift_a), right = Cosine::operand<T>(op.b, shift_b);
    on_device(
        ctx, tag, [&](auto) { cpu::cosine_forward(dims, left, right, s.data<Master<T>>()); },
        [&](auto) { cuda::cosine_forward(ctx.stream, dims, left, right, s.data<Master<T>>()); });
  });
  return record(ctx, std::move(s), {&a, &b}, std::move(op));
}

}  // namespace ermoe
