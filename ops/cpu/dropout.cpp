// Random omission on the CPU. Random words are made for a block at a time, which vectorises.
#include "ops/kernels/dropout.h"

#include "ops/cpu/store.h"

#include <algorithm>

namespace ermoe::cpu {
namespace {

constexpr int64_t groups = 64;         // calls of philox a block
constexpr int64_t block = 4 * groups;  // units a block

/// factor[i] = 1 / (1 - p) where unit `first` + i of these is kept, else 0.
template <typename T>
void draw(const DropoutDims& dims, RngKey key, int64_t first, T (&factor)[block]) {
  const T kept = static_cast<T>(1 / (1 - dims.p));
  const auto p = static_cast<float>(dims.p);
  const int64_t number = dims.first + first, off = number % 4;
  uint32_t words[block + 4];
#pragma omp simd
  for (int64_t g = 0; g < groups + 1; ++g) {
    const Random4 r = philox(key, static_cast<uint64_t>(number / 4 + g));
    words[4 * g] = r.x[0];
    words[4 * g + 1] = r.x[1];
    words[4 * g + 2] = r.x[2];
    words[4 * g + 3] = r.x[3];
  }
#pragma omp simd
  for (int64_t i = 0; i < block; ++i) factor[i] = dropout_keeps(words[i + off], p) ? kept : T(0);
}

/// A dropped element is zero even where x is not finite.
template <typename T>
T product(T x, T factor) {
  return factor == 0 ? T(0) : x * factor;
}

}  // namespace

template <typename T>
void dropout(const DropoutDims& dims, const T* x, T* y, Accumulate mode) {
  const RngKey key = dims.key.resolve();
  const bool large = dims.units * dims.unit > 4096;
  if (dims.unit == 1) {
#pragma omp parallel for schedule(static) if (large)
    for (int64_t first = 0; first < dims.units; first += block) {
      T factor[block];
      draw(dims, key, first, factor);
      store(std::min(block, dims.units - first), y + first, mode, [&](int64_t i) { return product(x[first + i], factor[i]); });
    }
    return;
  }
  for (int64_t first = 0; first < dims.units; first += block) {
    T factor[block];
    draw(dims, key, first, factor);
    const int64_t units = std::min(block, dims.units - first);
#pragma omp parallel for schedule(static) if (large)
    for (int64_t u = 0; u < units; ++u) {
      const int64_t at = (first + u) * dims.unit;
      const T f = factor[u];
      store(dims.unit, y + at, mode, [=](int64_t i) { return product(x[at + i], f); });
    }
  }
}

template void dropout(const DropoutDims&, const float*, float*, Accumulate);
template void dropout(const DropoutDims&, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
