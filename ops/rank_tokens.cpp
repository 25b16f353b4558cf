#include "ops/rank_tokens.h"

#include "ops/kernels/rank_tokens.h"

#include <limits>

namespace ermoe {

Tensor rank_tokens(const ExecContext& ctx, const Tensor& weights) {
  check(weights.defined() && weights.shape().rank() == 2 && weights.shape()[1] >= 1, "[rank_tokens] wants weights (N, K) but got {}",
        weights.shape().str());
  const RankTokensDims dims{.tokens = weights.shape()[0], .slots = weights.shape()[1]};
  check(dims.tokens < std::numeric_limits<int32_t>::max(), "[rank_tokens] weights {} are more tokens than 32 bits can number",
        weights.shape().str());
  Tensor order = ctx.empty({dims.tokens}, DType::i32, "plan");
  dispatch_float(weights.dtype(), "rank_tokens", [&](auto tag) {
    using T = decltype(tag);
    on_device(
        ctx, tag, [&](auto) { cpu::rank_tokens(dims, weights.data<T>(), order.data<int32_t>()); },
        [&](auto) {
          const auto priorities = ctx.workspace->borrow<float>(dims.tokens);
          cuda::rank_tokens(ctx.stream, dims, weights.data<T>(), order.data<int32_t>(), priorities.data());
        });
  });
  return order;
}

}  // namespace ermoe
