#include "ops/drop_experts.h"

#include "ops/kernels/drop_experts.h"
#include "ops/optional_tensor.h"

namespace ermoe {

Tensor drop_experts(const ExecContext& ctx, const Tensor& open, int64_t tokens, int64_t experts, int64_t clusters, int64_t dropped,
                    RngKey key) {
  check(tokens >= 0 && experts >= 1 && clusters >= 1 && experts % clusters == 0 && dropped >= 0 && dropped < experts / clusters,
        "[drop_experts] {} of each of {} groups of {} experts for {} tokens", dropped, clusters, experts, tokens);
  check(!open.defined() || (open.dtype() == DType::u8 && open.shape() == Shape{tokens, experts}),
        "[drop_experts] open {} {} for {} tokens and {} experts", name_of(open.dtype()), open.shape().str(), tokens, experts);
  const DropExpertsDims dims{.tokens = tokens, .experts = experts, .cluster = experts / clusters, .dropped = dropped};
  Tensor allow = ctx.empty({tokens, experts}, DType::u8, "plan");
  const auto* before = data_or_null<uint8_t>(open);
  on_device(
      ctx, [&] { cpu::drop_experts(dims, ctx.drawing(key), before, allow.data<uint8_t>()); },
      [&](auto) {
        const auto closed = ctx.workspace->borrow<uint8_t>(experts);
        cuda::drop_experts(ctx.stream, dims, ctx.drawing(key), before, allow.data<uint8_t>(), closed.data());
      });
  return allow;
}

}  // namespace ermoe
