// The table look-up on the CPU. Several ids may name one row, so the backward pass shares out columns, not ids: every
// element is summed by one thread, in the order of the ids.
#include "ops/kernels/embedding.h"

#include <algorithm>

namespace ermoe::cpu {

template <typename T>
void embedding_forward(const EmbeddingDims& dims, const T* table, const int32_t* ids, T* y) {
#pragma omp parallel for schedule(static) if (dims.count * dims.width > 16384)
  for (int64_t i = 0; i < dims.count; ++i) {
    const T* row = table + ids[i] * dims.width;
    std::copy(row, row + dims.width, y + i * dims.width);
  }
}

template <typename T>
void embedding_backward(const EmbeddingDims& dims, const int32_t* ids, const T* dy, Master<T>* dtable, Accumulate mode) {
  constexpr int64_t block = 32;
#pragma omp parallel for schedule(static) if ((dims.count + dims.rows) * dims.width > 16384)
  for (int64_t first = 0; first < dims.width; first += block) {
    const int64_t n = std::min(block, dims.width - first);
    if (mode == Accumulate::overwrite)
      for (int64_t v = 0; v < dims.rows; ++v) std::fill_n(dtable + v * dims.width + first, n, T(0));
    for (int64_t i = 0; i < dims.count; ++i) {
      const T* from = dy + i * dims.width + first;
      T* to = dtable + ids[i] * dims.width + first;
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) to[c] += from[c];
    }
  }
}

template void embedding_forward(const EmbeddingDims&, const float*, const int32_t*, float*);
template void embedding_forward(const EmbeddingDims&, const double*, const int32_t*, double*);
template void embedding_backward(const EmbeddingDims&, const int32_t*, const float*, float*, Accumulate);
template void embedding_backward(const EmbeddingDims&, const int32_t*, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
