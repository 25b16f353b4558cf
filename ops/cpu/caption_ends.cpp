#include "ops/kernels/caption_ends.h"

#include <algorithm>

namespace ermoe::cpu {

void caption_ends(const CaptionEndsDims& dims, const int32_t* tokens, int32_t* index, uint8_t* allow) {
  const int64_t W = dims.tokens, E = dims.experts;
  for (int64_t b = 0; b < dims.batch; ++b) {
    const int32_t* const caption = tokens + b * W;
    const auto found = std::find_if(caption, caption + W, [&](int32_t id) { return id == dims.end_token; });
    const int64_t end = std::min(found - caption, W - 1);
    index[b] = static_cast<int32_t>(end);
    if (allow == nullptr) continue;
    std::fill_n(allow + b * W * E, (end + 1) * E, uint8_t{1});
    std::fill_n(allow + (b * W + end + 1) * E, (W - 1 - end) * E, uint8_t{0});
  }
}

}  // namespace ermoe::cpu
