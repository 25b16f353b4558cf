#include "ops/kernels/token_weights.h"

#include <algorithm>

namespace ermoe::cpu {

template <typename T>
void token_weights(const TokenWeightsDims& dims, const uint8_t* allow, T* weights) {
  const int64_t rows = dims.group_rows();
  for (int64_t first = 0; first < dims.rows; first += rows) {
    const auto counts = [&](int64_t n) { return allow[n * dims.experts] != 0; };
    int64_t counted = 0;
    for (int64_t n = first; n < first + rows; ++n) counted += counts(n) ? 1 : 0;
    const T weight = static_cast<T>(static_cast<double>(rows) / static_cast<double>(std::max<int64_t>(counted, 1)));
    for (int64_t n = first; n < first + rows; ++n) weights[n] = counts(n) ? weight : T(0);
  }
}

template void token_weights(const TokenWeightsDims&, const uint8_t*, float*);
template void token_weights(const TokenWeightsDims&, const uint8_t*, double*);

}  // namespace ermoe::cpu
