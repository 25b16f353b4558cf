// Element-wise writes that honour Accumulate: an overwritten destination is never read, for it may hold NaNs.
#pragma once

#include "core/accumulate.h"

#include <cstdint>

namespace ermoe::cpu {

/// dst[i] (+)= value(i) for i < n, on the calling thread.
template <typename T, typename Fn>
inline void store(int64_t n, T* dst, Accumulate mode, Fn value) {
  if (mode == Accumulate::overwrite) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) dst[i] = value(i);
    return;
  }
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) dst[i] += value(i);
}

/// The same on all threads.
template <typename T, typename Fn>
inline void store_parallel(int64_t n, T* dst, Accumulate mode, Fn value) {
  if (mode == Accumulate::overwrite) {
#pragma omp parallel for simd if (n > 16384) schedule(static)
    for (int64_t i = 0; i < n; ++i) dst[i] = value(i);
    return;
  }
#pragma omp parallel for simd if (n > 16384) schedule(static)
  for (int64_t i = 0; i < n; ++i) dst[i] += value(i);
}

}  // namespace ermoe::cpu
