#include "ops/gather_slots.h"

#include "ops/kernels/gather_slots.h"

namespace ermoe {
namespace {

struct GatherSlots {
  static constexpr const char* name = "gather_slots";
  GatherSlotsDims dims;
  Tensor ids;  // (N, K) i32

  void backward(const ExecContext& ctx, const Tensor& dw, GradWriter& out) const {
    const GradSlot dp = out.into(0);
    dispatch_float(dw.dtype(), name, [&](auto tag) {
      using T = decltype(tag);
      const auto* at = ids.data<int32_t>();
      on_device(
          ctx, tag, [&](auto) { cpu::gather_slots_backward(dims, at, dw.data<T>(), dp.dst.data<T>(), dp.mode); },
          [&](auto) { cuda::gather_slots_backward(ctx.stream, dims, at, dw.data<T>(), dp.dst.data<T>(), dp.mode); });
    });
  }
};

}  // namespace

Variable gather_slots(const ExecContext& ctx, const Variable& p, const Tensor& ids) {
  check(p.shape().rank() == 2 && ids.defined() && ids.dtype() == DType::i32 && ids.shape().rank() == 2 && ids.shape()[0] == p.shape()[0],
        "[gather_slots] p {} and ids {} {}", p.shape().str(), name_of(ids.dtype()), ids.shape().str());
  const GatherSlotsDims dims{p.shape()[0], p.shape()[1], ids.shape()[1]};
  Tensor w = ctx.empty(ids.shape(), p.dtype());
  dispatch_float(p.dtype(), GatherSlots::name, [&](auto tag) {
    using T = decltype(tag);
    const auto* at = ids.data<int32_t>();
    on_device(
        ctx, tag, [&](auto) { cpu::gather_slots_forward(dims, p.value.data<T>(), at, w.data<T>()); },
        [&](auto) { cuda::gather_slots_forward(ctx.stream, dims, p.value.data<T>(), at, w.data<T>()); });
  });
  return record(ctx, std::move(w), {&p}, GatherSlots{.dims = dims, .ids = ids});
}

}  // namespace ermoe
