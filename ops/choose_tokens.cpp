#include "ops/choose_tokens.h"

#include "ops/optional_tensor.h"

#include <limits>

namespace ermoe {

Tensor choose_tokens(const ExecContext& ctx, const ChoiceDims& dims, const Tensor& scores, const Tensor& allow) {
  const Shape shape{dims.tokens, dims.experts};
  check(scores.defined() && scores.shape() == shape, "[choose_tokens] scores {} for {} tokens and {} experts", scores.shape().str(),
        dims.tokens, dims.experts);
  check(!allow.defined() || (allow.shape() == shape && allow.dtype() == DType::u8), "[choose_tokens] allow {} {} for scores {}",
        name_of(allow.dtype()), allow.shape().str(), shape.str());
  check(dims.group >= 1 && dims.group < std::numeric_limits<int32_t>::max(), "[choose_tokens] groups of {} tokens", dims.group);
  check(dims.each >= 1 && dims.each <= dims.experts, "[choose_tokens] {} experts a token of {} experts", dims.each, dims.experts);
  Tensor taken = ctx.empty(shape, DType::u8, "plan");
  dispatch_float(scores.dtype(), "choose_tokens", [&](auto tag) {
    using T = decltype(tag);
    const T* s = scores.data<T>();
    const uint8_t* mask = data_or_null<uint8_t>(allow);
    on_device(
        ctx, tag, [&](auto) { cpu::choose_tokens(dims, s, mask, taken.data<uint8_t>()); },
        [&](auto) { cuda::choose_tokens(ctx.stream, dims, s, mask, taken.data<uint8_t>()); });
  });
  return taken;
}

}  // namespace ermoe
