// Joining and pooling tokens on the CPU: copies and short sums, one sequence at a time.
#include "ops/kernels/tokens.h"

#include "ops/cpu/store.h"

#include <algorithm>

namespace ermoe::cpu {

template <typename T>
void concat_tokens_forward(const ConcatDims& dims, const T* prefix, const T* x, T* y) {
#pragma omp parallel for schedule(static) if (dims.batch * (dims.prefix + dims.rest) > 16384)
  for (int64_t b = 0; b < dims.batch; ++b) {
    T* row = y + b * (dims.prefix + dims.rest);
    std::copy(prefix, prefix + dims.prefix, row);
    std::copy(x + b * dims.rest, x + (b + 1) * dims.rest, row + dims.prefix);
  }
}

template <typename T>
void concat_tokens_backward(const ConcatDims& dims, const T* dy, T* dx, Accumulate mode) {
#pragma omp parallel for schedule(static) if (dims.batch * dims.rest > 16384)
  for (int64_t b = 0; b < dims.batch; ++b) {
    const T* row = dy + b * (dims.prefix + dims.rest) + dims.prefix;
    store(dims.rest, dx + b * dims.rest, mode, [=](int64_t i) { return row[i]; });
  }
}

template <typename T>
void skip_tokens_backward(const ConcatDims& dims, const T* dy, T* dx, Accumulate mode) {
#pragma omp parallel for schedule(static) if (dims.batch * dims.rest > 16384)
  for (int64_t b = 0; b < dims.batch; ++b) {
    T* row = dx + b * (dims.prefix + dims.rest);
    const T* d = dy + b * dims.rest;
    if (mode == Accumulate::overwrite) std::fill(row, row + dims.prefix, T(0));
    store(dims.rest, row + dims.prefix, mode, [=](int64_t i) { return d[i]; });
  }
}

template <typename T>
void pool_tokens_forward(const PoolDims& dims, const T* x, T* y) {
  const int64_t n = dims.width;
  const T weight = T(1) / static_cast<T>(dims.end - dims.begin);
#pragma omp parallel for schedule(static) if (dims.batch * (dims.end - dims.begin) * dims.width > 16384)
  for (int64_t b = 0; b < dims.batch; ++b) {
    T* mean = y + b * n;
    std::fill(mean, mean + n, T(0));
    for (int64_t t = dims.begin; t < dims.end; ++t) {
      const T* token = x + (b * dims.tokens + t) * n;
      store(n, mean, Accumulate::add, [=](int64_t i) { return token[i]; });
    }
    for (int64_t i = 0; i < n; ++i) mean[i] *= weight;
  }
}

template <typename T>
void pool_tokens_backward(const PoolDims& dims, const T* dy, T* dx, Accumulate mode) {
  const int64_t n = dims.width;
  const T weight = T(1) / static_cast<T>(dims.end - dims.begin);
#pragma omp parallel for schedule(static) if (dims.batch * dims.tokens * dims.width > 16384)
  for (int64_t b = 0; b < dims.batch; ++b) {
    const T* d = dy + b * n;
    for (int64_t t = 0; t < dims.tokens; ++t) {
      T* token = dx + (b * dims.tokens + t) * n;
      if (t >= dims.begin && t < dims.end)
        store(n, token, mode, [=](int64_t i) { return d[i] * weight; });
      else if (mode == Accumulate::overwrite)
        std::fill(token, token + n, T(0));
    }
  }
}

template void concat_tokens_forward(const ConcatDims&, const float*, const float*, float*);
template void concat_tokens_forward(const ConcatDims&, const double*, const double*, double*);
template void concat_tokens_backward(const ConcatDims&, const float*, float*, Accumulate);
template void concat_tokens_backward(const ConcatDims&, const double*, double*, Accumulate);
template void skip_tokens_backward(const ConcatDims&, const float*, float*, Accumulate);
template void skip_tokens_backward(const ConcatDims&, const double*, double*, Accumulate);
template void pool_tokens_forward(const PoolDims&, const float*, float*);
template void pool_tokens_forward(const PoolDims&, const double*, double*);
template void pool_tokens_backward(const PoolDims&, const float*, float*, Accumulate);
template void pool_tokens_backward(const PoolDims&, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
