// Turning matrices over on the CPU: in tiles, so that what is read by columns stays in the cache.
#include "ops/kernels/transpose.h"

#include <algorithm>

namespace ermoe::cpu {

template <typename T>
void transpose(const TransposeDims& dims, const T* x, T* y, Accumulate mode) {
  constexpr int64_t tile = 32;
  const int64_t bands = (dims.n + tile - 1) / tile;  // of y's rows
#pragma omp parallel for collapse(2) schedule(static) if (dims.batch * dims.m * dims.n > 16384)
  for (int64_t b = 0; b < dims.batch; ++b)
    for (int64_t band = 0; band < bands; ++band) {
      const T* from = x + b * dims.m * dims.n;
      T* to = y + b * dims.m * dims.n;
      for (int64_t first = 0; first < dims.m; first += tile)
        for (int64_t c = band * tile; c < std::min((band + 1) * tile, dims.n); ++c)
          for (int64_t r = first; r < std::min(first + tile, dims.m); ++r) {
            T& out = to[c * dims.m + r];
            out = mode == Accumulate::add ? out + from[r * dims.n + c] : from[r * dims.n + c];
          }
    }
}

template void transpose(const TransposeDims&, const float*, float*, Accumulate);
template void transpose(const TransposeDims&, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
