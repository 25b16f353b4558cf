#include "ops/caption_ends.h"

#include "ops/kernels/caption_ends.h"
#include "ops/optional_tensor.h"

namespace ermoe {

CaptionEnds caption_ends(const ExecContext& ctx, const Tensor& tokens, int64_t end_token, int64_t experts) {
  const Shape& s = tokens.shape();
  check(tokens.defined() && tokens.dtype() == DType::i32 && s.rank() == 2 && s[1] >= 1 && experts >= 0,
        "[caption_ends] wants tokens i32 (B, W) but got {} {} and {} experts", tokens.defined() ? name_of(tokens.dtype()) : "undefined",
        s.str(), experts);
  const CaptionEndsDims dims{.batch = s[0], .tokens = s[1], .experts = experts, .end_token = end_token};
  CaptionEnds ends{.index = ctx.empty({s[0]}, DType::i32, "plan"), .allow = {}};
  if (experts > 0) ends.allow = ctx.empty({s[0] * s[1], experts}, DType::u8, "plan");
  const int32_t* const from = tokens.data<int32_t>();
  int32_t* const index = ends.index.data<int32_t>();
  uint8_t* const allow = data_or_null<uint8_t>(ends.allow);
  on_device(
      ctx, [&] { cpu::caption_ends(dims, from, index, allow); }, [&](auto) { cuda::caption_ends(ctx.stream, dims, from, index, allow); });
  return ends;
}

}  // namespace ermoe
