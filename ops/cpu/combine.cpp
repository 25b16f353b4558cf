// Combine on the CPU. Every loop owns what it writes (a token, a row, a weight), so no order of threads shows.
#include "ops/kernels/combine.h"

#include <algorithm>

namespace ermoe::cpu {

template <typename T>
void combine_forward(const CombineDims& dims, const T* y, const Master<T>* weights, const int32_t* slot_row, T* out) {
#pragma omp parallel for if (dims.tokens * dims.slots * dims.width > 65536) schedule(static)
  for (int64_t n = 0; n < dims.tokens; ++n) {
    T* to = out + n * dims.width;
    std::fill_n(to, dims.width, T(0));
    for (int64_t slot = n * dims.slots; slot < (n + 1) * dims.slots; ++slot) {
      if (slot_row[slot] < 0) continue;
      const T weight = weights[slot];
      const T* from = y + slot_row[slot] * dims.width;
      for (int64_t d = 0; d < dims.width; ++d) to[d] += weight * from[d];
    }
  }
}

template <typename T>
void combine_backward_rows(const CombineDims& dims, const Master<T>* weights, const int32_t* row_slot, const T* dout, T* dy,
                           Accumulate mode) {
#pragma omp parallel for if (dims.rows * dims.width > 65536) schedule(static)
  for (int64_t row = 0; row < dims.rows; ++row) {
    T* to = dy + row * dims.width;
    const int32_t slot = row_slot[row];
    if (slot < 0) {
      if (mode == Accumulate::overwrite) std::fill_n(to, dims.width, T(0));
      continue;
    }
    const T weight = weights[slot];
    const T* from = dout + slot / dims.slots * dims.width;
    if (mode == Accumulate::overwrite)
      for (int64_t d = 0; d < dims.width; ++d) to[d] = weight * from[d];
    else
      for (int64_t d = 0; d < dims.width; ++d) to[d] += weight * from[d];
  }
}

template <typename T>
void combine_backward_weights(const CombineDims& dims, const T* y, const int32_t* slot_row, const T* dout, Master<T>* dweights,
                              Accumulate mode) {
  const int64_t slots = dims.tokens * dims.slots;
#pragma omp parallel for if (slots * dims.width > 65536) schedule(static)
  for (int64_t slot = 0; slot < slots; ++slot) {
    T sum = 0;
    if (slot_row[slot] >= 0) {
      const T* a = dout + slot / dims.slots * dims.width;
      const T* b = y + slot_row[slot] * dims.width;
#pragma omp simd reduction(+ : sum)
      for (int64_t d = 0; d < dims.width; ++d) sum += a[d] * b[d];
    }
    dweights[slot] = mode == Accumulate::add ? dweights[slot] + sum : sum;
  }
}

template void combine_forward(const CombineDims&, const float*, const float*, const int32_t*, float*);
template void combine_forward(const CombineDims&, const double*, const double*, const int32_t*, double*);
template void combine_backward_rows(const CombineDims&, const float*, const int32_t*, const float*, float*, Accumulate);
template void combine_backward_rows(const CombineDims&, const double*, const int32_t*, const double*, double*, Accumulate);
template void combine_backward_weights(const CombineDims&, const float*, const int32_t*, const float*, float*, Accumulate);
template void combine_backward_weights(const CombineDims&, const double*, const int32_t*, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
