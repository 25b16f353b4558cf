#include "ops/select_experts.h"

#include "ops/kernels/select_experts.h"
#include "ops/optional_tensor.h"

#include <limits>

namespace ermoe {
namespace {

SelectDims select_dims(const ExecContext& ctx, const SelectArgs& a) {
  check(a.scores.defined() && a.scores.shape().rank() == 2, "[select_experts] wants scores (N, E) but got {}", a.scores.shape().str());
  const Shape& shape = a.scores.shape();
  check(!a.order.defined() || (a.order.shape() == shape && a.order.dtype() == a.scores.dtype()),
        "[select_experts] order {} {} beside scores {} {}", name_of(a.order.dtype()), a.order.shape().str(), name_of(a.scores.dtype()),
        shape.str());
  check(!a.threshold.defined() || (a.threshold.numel() == 1 && a.threshold.dtype() == a.scores.dtype()),
        "[select_experts] threshold {} {} beside scores {}", name_of(a.threshold.dtype()), a.threshold.shape().str(),
        name_of(a.scores.dtype()));
  check(!a.allow.defined() || (a.allow.shape() == shape && a.allow.dtype() == DType::u8), "[select_experts] allow {} {} for scores {}",
        name_of(a.allow.dtype()), a.allow.shape().str(), shape.str());
  check(a.free_experts >= 0 && a.free_experts < std::numeric_limits<int32_t>::max() - shape[1], "[select_experts] {} free experts",
        a.free_experts);
  check(a.slots >= 1 && a.slots <= shape[1] + a.free_experts, "[select_experts] {} slots a token for {} experts and {} free ones", a.slots,
        shape[1], a.free_experts);
  return {.tokens = shape[0],
          .experts = shape[1],
          .slots = a.slots,
          .free_experts = a.free_experts,
          .first_token = ctx.part.elements_before(shape[0])};
}

}  // namespace

Selection select_experts(const ExecContext& ctx, const SelectArgs& args) {
  const SelectDims dims = select_dims(ctx, args);
  Selection selection{.ids = ctx.empty({dims.tokens, dims.slots}, DType::i32, "plan"),
                      .fallback = ctx.empty({dims.tokens, dims.slots}, DType::u8, "plan"),
                      .nonfinite = ctx.empty({1}, DType::i32, "plan")};
  const SelectOutputs out{selection.ids.data<int32_t>(), selection.fallback.data<uint8_t>(), selection.nonfinite.data<int32_t>()};
  dispatch_float(args.scores.dtype(), "select_experts", [&](auto tag) {
    using T = decltype(tag);
    const T* scores = args.scores.data<T>();
    const SelectInputs<T> in{.scores = scores,
                             .order = args.order.defined() ? args.order.data<T>() : scores,
                             .threshold = data_or_null<T>(args.threshold),
                             .allow = data_or_null<uint8_t>(args.allow)};
    on_device(
        ctx, tag, [&](auto) { cpu::select_experts(dims, in, out); }, [&](auto) { cuda::select_experts(ctx.stream, dims, in, out); });
  });
  return selection;
}

}  // namespace ermoe
