#include "ops/cosine.h"

#include "ops/checks.h"
#include "ops/kernels/cosine.h"

namespace ermoe {
namespace {

struct Cosine {
  static constexpr const char* name = "cosine";
  CosineDims dims;
  Tensor a, b;  // (…, R)

  void backward(const ExecContext& ctx, const Tensor& ds, GradWriter& out) const {
    dispatch_compute(a.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      for (size_t i : {0, 1}) {
        if (!out.wants(i)) continue;
        const Tensor &own = i == 0 ? a : b, &other = i == 0 ? b : a;
        const GradSlot slot = out.into(i);
        on_device(
            ctx, tag,
            [&](auto) { cpu::cosine_backward(dims, own.data<T>(), other.data<T>(), ds.data<Master<T>>(), slot.dst.data<T>(), slot.mode); },
            [&](auto) {
              cuda::cosine_backward(ctx.stream, dims, own.data<T>(), other.data<T>(), ds.data<Master<T>>(), slot.dst.data<T>(), slot.mode);
            });
      }
    });
  }
};

}  // namespace

Variable cosine(const ExecContext& ctx, const Variable& a, const Variable& b) {
  check_floats(Cosine::name, {&a, &b});
  check(a.shape() == b.shape() && a.shape().rank() >= 1, "[cosine] a {} but b {}", a.shape().str(), b.shape().str());
  const CosineDims dims{.pairs = a.shape().rows(), .width = a.shape()[-1]};
  Tensor s = ctx.empty(Shape(std::span(a.shape().begin(), a.shape().end() - 1)), master_of(a.dtype()));
  dispatch_compute(a.dtype(), Cosine::name, [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::cosine_forward(dims, a.value.data<T>(), b.value.data<T>(), s.data<Master<T>>()); },
        [&](auto) { cuda::cosine_forward(ctx.stream, dims, a.value.data<T>(), b.value.data<T>(), s.data<Master<T>>()); });
  });
  return record(ctx, std::move(s), {&a, &b}, Cosine{.dims = dims, .a = a.value, .b = b.value});
}

}  // namespace ermoe
