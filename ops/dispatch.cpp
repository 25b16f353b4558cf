#include "ops/dispatch.h"

#include "ops/kernels/dispatch.h"

namespace ermoe {
namespace {

struct Dispatch {
  static constexpr const char* name = "dispatch";
  DispatchDims dims;
  DType dtype;
  Tensor slot_row;  // (N*K) i32

  void backward(const ExecContext& ctx, const Tensor& dy, GradWriter& out) const {
    const GradSlot dx = out.into(0);
    dispatch_compute(dtype, name, [&](auto tag) {
      using T = decltype(tag);
      const int32_t* rows = slot_row.data<int32_t>();
      on_device(
          ctx, tag, [&](auto) { cpu::dispatch_backward(dims, rows, dy.data<T>(), dx.dst.data<T>(), dx.mode); },
          [&](auto) { cuda::dispatch_backward(ctx.stream, dims, rows, dy.data<T>(), dx.dst.data<T>(), dx.mode); });
    });
  }
};

}  // namespace

Variable dispatch(const ExecContext& ctx, const Variable& x, const RoutingPlan& plan) {
  check(x.shape().rank() == 2 && x.shape()[0] == plan.tokens, "[dispatch] x {} but the plan has {} tokens", x.shape().str(), plan.tokens);
  const DispatchDims dims{plan.tokens, plan.slots, x.shape()[1], plan.rows()};
  Tensor y = ctx.empty({plan.rows(), dims.width}, x.dtype());
  dispatch_compute(x.dtype(), Dispatch::name, [&](auto tag) {
    using T = decltype(tag);
    const int32_t* tokens = plan.row_token.data<int32_t>();
    on_device(
        ctx, tag, [&](auto) { cpu::dispatch_forward(dims, x.value.data<T>(), tokens, y.data<T>()); },
        [&](auto) { cuda::dispatch_forward(ctx.stream, dims, x.value.data<T>(), tokens, y.data<T>()); });
  });
  return record(ctx, std::move(y), {&x}, Dispatch{.dims = dims, .dtype = x.dtype(), .slot_row = plan.slot_row});
}

}  // namespace ermoe
