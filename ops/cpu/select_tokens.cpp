// One token of each sequence on the CPU: a copy of a row.
#include "ops/kernels/select_tokens.h"

#include "ops/cpu/store.h"

#include <algorithm>

namespace ermoe::cpu {

template <typename T>
void select_tokens_forward(const SelectTokensDims& dims, const T* x, const int32_t* index, T* y) {
  for (int64_t b = 0; b < dims.batch; ++b) std::copy_n(x + (b * dims.tokens + index[b]) * dims.width, dims.width, y + b * dims.width);
}

template <typename T>
void select_tokens_backward(const SelectTokensDims& dims, const T* dy, const int32_t* index, T* dx, Accumulate mode) {
#pragma omp parallel for schedule(static) if (dims.batch * dims.tokens * dims.width > 16384)
  for (int64_t b = 0; b < dims.batch; ++b) {
    T* const sequence = dx + b * dims.tokens * dims.width;
    const T* const row = dy + b * dims.width;
    if (mode == Accumulate::overwrite) std::fill_n(sequence, dims.tokens * dims.width, T(0));
    store(dims.width, sequence + index[b] * dims.width, mode, [=](int64_t i) { return row[i]; });
  }
}

template void select_tokens_forward(const SelectTokensDims&, const float*, const int32_t*, float*);
template void select_tokens_forward(const SelectTokensDims&, const double*, const int32_t*, double*);
template void select_tokens_backward(const SelectTokensDims&, const float*, const int32_t*, float*, Accumulate);
template void select_tokens_backward(const SelectTokensDims&, const double*, const int32_t*, double*, Accumulate);

}  // namespace ermoe::cpu
