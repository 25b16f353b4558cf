// The subspace score on the CPU: norms of short vectors, tokens independent.
#include "ops/kernels/subspace_cosine.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace ermoe::cpu {
namespace {

template <typename T>
T squared_norm(const T* v, int64_t width) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < width; ++i) sum += v[i] * v[i];
  return sum;
}

template <typename T>
T squared_distance(const T* v, const Master<T>* mean, int64_t width) {
  if (mean == nullptr) return squared_norm(v, width);
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < width; ++i) sum += (v[i] - mean[i]) * (v[i] - mean[i]);
  return sum;
}

/// False for a NaN: it has to show.
template <typename T>
bool is_zero(T squared) {
  return squared < std::numeric_limits<T>::min();
}

}  // namespace

template <typename T>
void subspace_cosine_forward(const SubspaceCosineDims& dims, const T* x, const Master<T>* mean, const T* z, Master<T>* s) {
#pragma omp parallel for if (dims.tokens * dims.width > 32768) schedule(static)
  for (int64_t n = 0; n < dims.tokens; ++n) {
    const T xx = squared_distance(x + n * dims.width, mean, dims.width);
    for (int64_t pair = n * dims.experts; pair < (n + 1) * dims.experts; ++pair) {
      const T zz = squared_norm(z + pair * dims.rank, dims.rank);
      s[pair] = is_zero(xx) || is_zero(zz) ? T(0) : std::sqrt(zz) / std::sqrt(xx);
    }
  }
}

template <typename T>
void subspace_cosine_backward_z(const SubspaceCosineDims& dims, const T* x, const Master<T>* mean, const T* z, const Master<T>* ds, T* dz,
                                Accumulate mode) {
#pragma omp parallel for if (dims.tokens * dims.width > 32768) schedule(static)
  for (int64_t n = 0; n < dims.tokens; ++n) {
    const T xx = squared_distance(x + n * dims.width, mean, dims.width);
    for (int64_t pair = n * dims.experts; pair < (n + 1) * dims.experts; ++pair) {
      const T* from = z + pair * dims.rank;
      T* to = dz + pair * dims.rank;
      const T zz = squared_norm(from, dims.rank);
      const T factor = is_zero(xx) || is_zero(zz) ? T(0) : ds[pair] / (std::sqrt(zz) * std::sqrt(xx));
      if (mode == Accumulate::overwrite)
        for (int64_t r = 0; r < dims.rank; ++r) to[r] = factor * from[r];
      else
        for (int64_t r = 0; r < dims.rank; ++r) to[r] += factor * from[r];
    }
  }
}

template <typename T>
void subspace_cosine_backward_x(const SubspaceCosineDims& dims, const T* x, const Master<T>* mean, const Master<T>* s, const Master<T>* ds,
                                T* dx, Accumulate mode) {
#pragma omp parallel for if (dims.tokens * dims.width > 32768) schedule(static)
  for (int64_t n = 0; n < dims.tokens; ++n) {
    const T* from = x + n * dims.width;
    T* to = dx + n * dims.width;
    const T xx = squared_distance(from, mean, dims.width);
    T sum = 0;
    for (int64_t pair = n * dims.experts; pair < (n + 1) * dims.experts; ++pair) sum += ds[pair] * s[pair];
    const T factor = is_zero(xx) ? T(0) : -sum / xx;
    for (int64_t d = 0; d < dims.width; ++d) {
      const T term = factor * (mean == nullptr ? from[d] : from[d] - mean[d]);
      to[d] = mode == Accumulate::add ? to[d] + term : term;
    }
  }
}

template void subspace_cosine_forward(const SubspaceCosineDims&, const float*, const float*, const float*, float*);
template void subspace_cosine_forward(const SubspaceCosineDims&, const double*, const double*, const double*, double*);
template void subspace_cosine_backward_z(const SubspaceCosineDims&, const float*, const float*, const float*, const float*, float*,
                                         Accumulate);
template void subspace_cosine_backward_z(const SubspaceCosineDims&, const double*, const double*, const double*, const double*, double*,
                                         Accumulate);
template void subspace_cosine_backward_x(const SubspaceCosineDims&, const float*, const float*, const float*, const float*, float*,
                                         Accumulate);
template void subspace_cosine_backward_x(const SubspaceCosineDims&, const double*, const double*, const double*, const double*, double*,
                                         Accumulate);

}  // namespace ermoe::cpu
