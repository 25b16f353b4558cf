// Where captions end, and which of their tokens are padding. Not on the tape: tokens have no gradient. Read next: ops/select_tokens.h.
#pragma once

#include "core/context.h"

namespace ermoe {

struct CaptionEnds {
  Tensor index;  // (B) i32: the first token of each caption that ends it; its last token where none does
  Tensor allow;  // (B·W, E) u8: 1 up to there and 0 for the padding behind it; undefined without experts
};

/// Of tokens (B, W) i32, W at least 1, that `end_token` ends. `experts`: E; 0: nobody wants the mask.
CaptionEnds caption_ends(const ExecContext& ctx, const Tensor& tokens, int64_t end_token, int64_t experts);

}  // namespace ermoe
