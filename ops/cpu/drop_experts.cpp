// Closing experts on the CPU.
#include "ops/kernels/drop_experts.h"

#include <vector>

namespace ermoe::cpu {

void drop_experts(const DropExpertsDims& dims, DrawKey drawn, const uint8_t* open, uint8_t* allow) {
  const RngKey key = drawn.resolve();
  std::vector<uint8_t> closed(static_cast<size_t>(dims.experts));
  for (int64_t e = 0; e < dims.experts; ++e) closed[static_cast<size_t>(e)] = is_dropped(dims, key, e);
  for (int64_t i = 0; i < dims.tokens * dims.experts; ++i)
    allow[i] = closed[static_cast<size_t>(i % dims.experts)] ? 0 : open == nullptr ? 1 : open[i];
}

}  // namespace ermoe::cpu
