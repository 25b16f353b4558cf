#include "ops/add_noise.h"

#include "ops/kernels/add_noise.h"

namespace ermoe {
namespace {

struct AddNoise {
  static constexpr const char* name = "add_noise";

  void backward(const ExecContext&, const Tensor& dy, GradWriter& out) const { out.give(0, dy); }
};

}  // namespace

Variable add_noise(const ExecContext& ctx, const Variable& x, double deviation, RngKey key) {
  check(deviation >= 0, "[add_noise] deviation {}", deviation);
  Tensor y = ctx.empty(x.shape(), x.dtype());
  dispatch_float(x.dtype(), AddNoise::name, [&](auto tag) {
    using T = decltype(tag);
    const AddNoiseDims dims{.numel = x.value.numel(), .deviation = deviation, .first = ctx.part.elements_before(x.value.numel())};
    on_device(
        ctx, tag, [&](auto) { cpu::add_noise(dims, ctx.drawing(key), x.value.data<T>(), y.data<T>()); },
        [&](auto) { cuda::add_noise(ctx.stream, dims, ctx.drawing(key), x.value.data<T>(), y.data<T>()); });
  });
  return record(ctx, std::move(y), {&x}, AddNoise{});
}

}  // namespace ermoe
