// Mixup and cutmix on the CPU. Partners are mixed in pairs, so no copy of the batch is needed.
#include "ops/kernels/mix_batch.h"

#include <algorithm>

namespace ermoe::cpu {

template <typename T>
void mix_rows(int64_t batch, int64_t width, double own, T* x) {
  const T mine = static_cast<T>(own), theirs = static_cast<T>(1 - own);
#pragma omp parallel for schedule(static) if (batch * width > 16384)
  for (int64_t b = 0; b < batch / 2; ++b) {
    T* first = x + b * width;
    T* second = x + (batch - 1 - b) * width;
#pragma omp simd
    for (int64_t i = 0; i < width; ++i) {
      const T p = first[i], q = second[i];
      first[i] = mine * p + theirs * q;
      second[i] = mine * q + theirs * p;
    }
  }
}

template <typename T>
void swap_boxes(const MixDims& dims, const Rectangle& box, T* images) {
  const int64_t plane = dims.height * dims.width, size = dims.channels * plane;
#pragma omp parallel for schedule(static) if (dims.batch * size > 16384)
  for (int64_t b = 0; b < dims.batch / 2; ++b)
    for (int64_t c = 0; c < dims.channels; ++c)
      for (int64_t y = box.top; y < box.top + box.height; ++y) {
        const int64_t at = c * plane + y * dims.width + box.left;
        T* first = images + b * size + at;
        std::swap_ranges(first, first + box.width, images + (dims.batch - 1 - b) * size + at);
      }
}

template void mix_rows(int64_t, int64_t, double, float*);
template void mix_rows(int64_t, int64_t, double, double*);
template void swap_boxes(const MixDims&, const Rectangle&, float*);
template void swap_boxes(const MixDims&, const Rectangle&, double*);

}  // namespace ermoe::cpu
