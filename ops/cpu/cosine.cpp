// Cosines on the CPU: one pass over both vectors forward; backward repeats it, which is cheaper than saving two norms.
#include "ops/kernels/cosine.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace ermoe::cpu {
namespace {

template <typename T>
struct Moments {
  T ab = 0, aa = 0, bb = 0;

  Moments(const T* a, const T* b, int64_t width) {
    T sum_ab = 0, sum_aa = 0, sum_bb = 0;
#pragma omp simd reduction(+ : sum_ab, sum_aa, sum_bb)
    for (int64_t r = 0; r < width; ++r) {
      sum_ab += a[r] * b[r];
      sum_aa += a[r] * a[r];
      sum_bb += b[r] * b[r];
    }
    ab = sum_ab;
    aa = sum_aa;
    bb = sum_bb;
  }
  /// False for a NaN: it has to show.
  bool zero() const { return aa < std::numeric_limits<T>::min() || bb < std::numeric_limits<T>::min(); }
  T cosine() const { return ab / (std::sqrt(aa) * std::sqrt(bb)); }
};

}  // namespace

template <typename T>
void cosine_forward(const CosineDims& dims, const T* a, const T* b, Master<T>* s) {
#pragma omp parallel for if (dims.pairs * dims.width > 32768) schedule(static)
  for (int64_t i = 0; i < dims.pairs; ++i) {
    const Moments<T> m(a + i * dims.width, b + i * dims.width, dims.width);
    s[i] = m.zero() ? T(0) : m.cosine();
  }
}

template <typename T>
void cosine_backward(const CosineDims& dims, const T* a, const T* b, const Master<T>* ds, T* da, Accumulate mode) {
#pragma omp parallel for if (dims.pairs * dims.width > 32768) schedule(static)
  for (int64_t i = 0; i < dims.pairs; ++i) {
    const T *va = a + i * dims.width, *vb = b + i * dims.width;
    T* to = da + i * dims.width;
    const Moments<T> m(va, vb, dims.width);
    if (m.zero()) {
      if (mode == Accumulate::overwrite) std::fill_n(to, dims.width, T(0));
      continue;
    }
    const T of_b = ds[i] / (std::sqrt(m.aa) * std::sqrt(m.bb)), of_a = -ds[i] * m.cosine() / m.aa;
    if (mode == Accumulate::overwrite)
      for (int64_t r = 0; r < dims.width; ++r) to[r] = of_b * vb[r] + of_a * va[r];
    else
      for (int64_t r = 0; r < dims.width; ++r) to[r] += of_b * vb[r] + of_a * va[r];
  }
}

template void cosine_forward(const CosineDims&, const float*, const float*, float*);
template void cosine_forward(const CosineDims&, const double*, const double*, double*);
template void cosine_backward(const CosineDims&, const float*, const float*, const float*, float*, Accumulate);
template void cosine_backward(const CosineDims&, const double*, const double*, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
