#include "ops/token_weights.h"

#include "ops/kernels/token_weights.h"

namespace ermoe {

Tensor token_weights(const ExecContext& ctx, const Tensor& allow, int64_t groups, DType dtype) {
  const Shape& s = allow.shape();
  check(allow.defined() && allow.dtype() == DType::u8 && s.rank() == 2 && s[1] >= 1, "[token_weights] wants a mask u8 (N, E) but got {} {}",
        allow.defined() ? name_of(allow.dtype()) : "undefined", s.str());
  check(groups >= 1 && s[0] % groups == 0, "[token_weights] {} rows in {} groups", s[0], groups);
  const TokenWeightsDims dims{.rows = s[0], .experts = s[1], .groups = groups};
  Tensor weights = ctx.empty({dims.rows}, dtype);
  dispatch_float(dtype, "token_weights", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::token_weights(dims, allow.data<uint8_t>(), weights.data<T>()); },
        [&](auto) { cuda::token_weights(ctx.stream, dims, allow.data<uint8_t>(), weights.data<T>()); });
  });
  return weights;
}

}  // namespace ermoe
