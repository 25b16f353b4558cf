// The factored product on the CPU: one GEMM an expert and direction, between passes that scale columns.
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

int64_t multiplications(const MaterializeDims& d) { return d.rows * d.cols * d.rank; }

template <typename T>
void multiply_by_v(const MaterializeDims& dims, const T* v, const T* dw, T* p) {
  const auto [experts, m, n, r] = dims;
  for_each_matrix(experts, multiplications(dims), [&, m = m, n = n, r = r](int64_t e) {
    gemm(Trans::no, Trans::no, m, r, n, T(1), dw + e * m * n, n, v + e * n * r, r, T(0), p + e * m * r, r);
  });
}

template <typename T>
void backward_u(const MaterializeDims& dims, const T* s, const T* p, Destination<T> du) {
  const auto [experts, m, n, r] = dims;
#pragma omp parallel for schedule(static) if (dims.experts * dims.rows * dims.rank > 65536)
  for (int64_t e = 0; e < dims.experts; ++e) scale_columns(m, r, p + e * m * r, s + e * r, du.data + e * m * r, du.mode);
}

template <typename T>
void backward_s(const MaterializeDims& dims, const T* u, const T* p, Destination<T> ds) {
  constexpr int64_t block = 64;  // columns a thread sums, rows in their order
  const int64_t blocks = (dims.rank + block - 1) / block;
#pragma omp parallel for collapse(2) schedule(static) if (dims.experts * dims.rows * dims.rank > 65536)
  for (int64_t e = 0; e < dims.experts; ++e) {
    for (int64_t c = 0; c < blocks; ++c) {
      const int64_t first = c * block, width = std::min(block, dims.rank - first);
      T sum[block] = {};
      for (int64_t i = 0; i < dims.rows; ++i) {
        const int64_t at = (e * dims.rows + i) * dims.rank + first;
        for (int64_t r = 0; r < width; ++r) sum[r] += u[at + r] * p[at + r];
      }
      T* to = ds.data + e * dims.rank + first;
      for (int64_t r = 0; r < width; ++r) to[r] = ds.mode == Accumulate::add ? to[r] + sum[r] : sum[r];
    }
  }
}

template <typename T>
void backward_v(const MaterializeDims& dims, const T* u, const T* s, const T* dw, T* scratch, Destination<T> dv) {
  const auto [experts, m, n, r] = dims;
  const T beta = dv.mode == Accumulate::add ? T(1) : T(0);
  for_each_matrix(experts, multiplications(dims), [&, m = m, n = n, r = r](int64_t e) {
    T* scaled = scratch + e * m * r;
    scale_columns(m, r, u + e * m * r, s + e * r, scaled, Accumulate::overwrite);
    gemm(Trans::yes, Trans::no, n, r, m, T(1), dw + e * m * n, n, scaled, r, beta, dv.data + e * n * r, r);
  });
}

}  // namespace

template <typename T>
void materialize_forward(const MaterializeDims& dims, const Master<T>* u, const Master<T>* s, const Master<T>* v, Master<T>* products,
                         T* w) {
  const auto [experts, m, n, r] = dims;
  for_each_matrix(experts, multiplications(dims), [&, m = m, n = n, r = r](int64_t e) {
    T* scaled = products + e * m * r;
    scale_columns(m, r, u + e * m * r, s + e * r, scaled, Accumulate::overwrite);
    gemm(Trans::no, Trans::yes, m, n, r, T(1), scaled, r, v + e * n * r, r, T(0), w + e * m * n, n);
  });
}

template <typename T>
void materialize_backward(const MaterializeDims& dims, const Master<T>* u, const Master<T>* s, const Master<T>* v, const Master<T>* dw,
                          Master<T>* products, Destination<Master<T>> du, Destination<Master<T>> ds, Destination<Master<T>> dv) {
  if (du.data != nullptr || ds.data != nullptr) multiply_by_v(dims, v, dw, products);
  if (du.data != nullptr) backward_u(dims, s, products, du);
  if (ds.data != nullptr) backward_s(dims, u, products, ds);
  if (dv.data != nullptr) backward_v(dims, u, s, dw, products, dv);
}

template void materialize_forward<float>(const MaterializeDims&, const float*, const float*, const float*, float*, float*);
template void materialize_forward<double>(const MaterializeDims&, const double*, const double*, const double*, double*, double*);
template void materialize_backward<float>(const MaterializeDims&, const float*, const float*, const float*, const float*, float*,
                                          Destination<float>, Destination<float>, Destination<float>);
template void materialize_backward<double>(const MaterializeDims&, const double*, const double*, const double*, const double*, double*,
                                           Destination<double>, Destination<double>, Destination<double>);

}  // namespace ermoe::cpu
