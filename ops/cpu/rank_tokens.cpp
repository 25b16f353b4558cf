// Ordering tokens on the CPU: a stable sort of their numbers.
#include "ops/kernels/rank_tokens.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace ermoe::cpu {

template <typename T>
void rank_tokens(const RankTokensDims& dims, const T* weights, int32_t* order) {
  std::vector<T> priority(static_cast<size_t>(dims.tokens));
  for (int64_t n = 0; n < dims.tokens; ++n) priority[static_cast<size_t>(n)] = priority_of(weights + n * dims.slots, dims.slots);
  std::iota(order, order + dims.tokens, 0);
  std::stable_sort(order, order + dims.tokens,
                   [&](int32_t a, int32_t b) { return priority[static_cast<size_t>(a)] > priority[static_cast<size_t>(b)]; });
}

template void rank_tokens(const RankTokensDims&, const float*, int32_t*);
template void rank_tokens(const RankTokensDims&, const double*, int32_t*);

}  // namespace ermoe::cpu
