// The factored product on the CPU: one GEMM an expert and direction, between passes that scale the small
// factor's columns.
#include "ops/kernels/materialize.h"

#include "ops/cpu/batch.h"
#include "ops/cpu/blas.h"

#include <algorithm>

namespace ermoe::cpu {
namespace {

/// to (rows, r) (+)= from diag(s), for one expert.
template <typename T>
void scale_columns(int64_t rows, int64_t rank, const T* from, const T* s, T* to, Accumulate mode) {
  for (int64_t i = 0; i < rows; ++i) {
    const T* a = from + i * rank;
    T* b = to + i * rank;
    if (mode == Accumulate::overwrite)
      for (int64_t r = 0; r < rank; ++r) b[r] = a[r] * s[r];
    else
      for (int64_t r = 0; r < rank; ++r) b[r] += a[r] * s[r];
  }
}

int64_t multiplications(const MaterializeDims& d) { return d.small * d.large * d.rank; }

/// p = dw large, dw as (a, b).
template <typename T>
void multiply_by_large(const MaterializeDims& dims, const T* large, const T* dw, T* p) {
  const int64_t a = dims.small, b = dims.large, r = dims.rank;
  for_each_matrix(dims.experts, multiplications(dims), [&](int64_t e) {
    gemm(dims.w, Trans::no, a, r, b, T(1), dw + e * a * b, dims.w == Trans::no ? b : a, large + e * b * r, r, T(0), p + e * a * r, r);
  });
}

template <typename T>
void backward_small(const MaterializeDims& dims, const T* s, const T* p, Destination<T> to) {
  const int64_t stride = dims.small * dims.rank;
#pragma omp parallel for schedule(static) if (dims.products() > 65536)
  for (int64_t e = 0; e < dims.experts; ++e)
    scale_columns(dims.small, dims.rank, p + e * stride, s + e * dims.rank, to.data + e * stride, to.mode);
}

template <typename T>
void backward_s(const MaterializeDims& dims, const T* small, const T* p, Destination<T> ds) {
  constexpr int64_t block = 64;  // columns a thread sums, rows in their order
  const int64_t blocks = (dims.rank + block - 1) / block;
#pragma omp parallel for collapse(2) schedule(static) if (dims.products() > 65536)
  for (int64_t e = 0; e < dims.experts; ++e) {
    for (int64_t c = 0; c < blocks; ++c) {
      const int64_t first = c * block, width = std::min(block, dims.rank - first);
      T sum[block] = {};
      for (int64_t i = 0; i < dims.small; ++i) {
        const int64_t at = (e * dims.small + i) * dims.rank + first;
        for (int64_t r = 0; r < width; ++r) sum[r] += small[at + r] * p[at + r];
      }
      T* to = ds.data + e * dims.rank + first;
      for (int64_t r = 0; r < width; ++r) to[r] = ds.mode == Accumulate::add ? to[r] + sum[r] : sum[r];
    }
  }
}

template <typename T>
void backward_large(const MaterializeDims& dims, const T* small, const T* s, const T* dw, T* scratch, Destination<T> to) {
  const int64_t a = dims.small, b = dims.large, r = dims.rank;
  const T beta = to.mode == Accumulate::add ? T(1) : T(0);
  for_each_matrix(dims.experts, multiplications(dims), [&](int64_t e) {
    T* scaled = scratch + e * a * r;
    scale_columns(a, r, small + e * a * r, s + e * r, scaled, Accumulate::overwrite);
    gemm(flip(dims.w), Trans::no, b, r, a, T(1), dw + e * a * b, dims.w == Trans::no ? b : a, scaled, r, beta, to.data + e * b * r, r);
  });
}

}  // namespace

template <typename T>
void materialize_forward(const MaterializeDims& dims, const Master<T>* small, const Master<T>* s, const Master<T>* large,
                         Master<T>* products, T* w) {
  const int64_t a = dims.small, b = dims.large, r = dims.rank;
  for_each_matrix(dims.experts, multiplications(dims), [&](int64_t e) {
    T* scaled = products + e * a * r;
    scale_columns(a, r, small + e * a * r, s + e * r, scaled, Accumulate::overwrite);
    const T* other = large + e * b * r;
    if (dims.w == Trans::no)
      gemm(Trans::no, Trans::yes, a, b, r, T(1), scaled, r, other, r, T(0), w + e * a * b, b);
    else
      gemm(Trans::no, Trans::yes, b, a, r, T(1), other, r, scaled, r, T(0), w + e * a * b, a);
  });
}

template <typename T>
void materialize_backward(const MaterializeDims& dims, const Master<T>* small, const Master<T>* s, const Master<T>* large,
                          const Master<T>* dw, Master<T>* products, Destination<Master<T>> dsmall, Destination<Master<T>> ds,
                          Destination<Master<T>> dlarge) {
  if (dsmall.data != nullptr || ds.data != nullptr) multiply_by_large(dims, large, dw, products);
  if (dsmall.data != nullptr) backward_small(dims, s, products, dsmall);
  if (ds.data != nullptr) backward_s(dims, small, products, ds);
  if (dlarge.data != nullptr) backward_large(dims, small, s, dw, products, dlarge);
}

template void materialize_forward<float>(const MaterializeDims&, const float*, const float*, const float*, float*, float*);
template void materialize_forward<double>(const MaterializeDims&, const double*, const double*, const double*, double*, double*);
template void materialize_backward<float>(const MaterializeDims&, const float*, const float*, const float*, const float*, float*,
                                          Destination<float>, Destination<float>, Destination<float>);
template void materialize_backward<double>(const MaterializeDims&, const double*, const double*, const double*, const double*, double*,
                                           Destination<double>, Destination<double>, Destination<double>);

}  // namespace ermoe::cpu
