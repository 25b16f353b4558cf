// The overlap of outputs on the CPU. A thread owns a token or a row; the tokens' losses are added in order.
#include "ops/kernels/output_overlap.h"

#include <algorithm>
#include <vector>

namespace ermoe::cpu {
namespace {

constexpr int64_t parallel_from = 65536;  // elements

/// g_jk = <y_j, y_k> into (K, K), 0 where one of them is missing.
template <typename T>
void multiply(const OutputOverlapDims& dims, const T* y, const int32_t* rows, T* g) {
  const int64_t K = dims.slots;
  for (int64_t j = 0; j < K; ++j)
    for (int64_t k = j; k < K; ++k) {
      T sum = 0;
      if (rows[j] >= 0 && rows[k] >= 0) {
        const T *a = y + rows[j] * dims.width, *b = y + rows[k] * dims.width;
#pragma omp simd reduction(+ : sum)
        for (int64_t d = 0; d < dims.width; ++d) sum += a[d] * b[d];
      }
      g[j * K + k] = g[k * K + j] = sum;
    }
}

template <typename T>
double overlap_of(int64_t K, const T* g) {
  double loss = 0;
  for (int64_t j = 0; j < K; ++j)
    for (int64_t k = 0; k < K; ++k)
      if (k != j) loss += static_cast<double>(g[j * K + k] * g[j * K + k] * overlap_inverse(g[k * K + k]));
  return loss;
}

}  // namespace

template <typename T>
void output_overlap_forward(const OutputOverlapDims& dims, const T* y, const int32_t* slot_row, const Master<T>* weights,
                            Master<T>* products, Master<T>* loss) {
  const int64_t K = dims.slots;
  std::vector<double> losses(static_cast<size_t>(dims.tokens));
#pragma omp parallel for if (dims.tokens * K * dims.width > parallel_from) schedule(static)
  for (int64_t n = 0; n < dims.tokens; ++n) {
    T* const g = products + n * K * K;
    multiply(dims, y, slot_row + n * K, g);
    losses[static_cast<size_t>(n)] = weight_of(weights, n) * overlap_of(K, g);
  }
  double sum = 0;
  for (const double own : losses) sum += own;
  *loss = static_cast<T>(sum / static_cast<double>(dims.tokens));
}

template <typename T>
void output_overlap_backward(const OutputOverlapDims& dims, const T* y, const Master<T>* products, const int32_t* slot_row,
                             const int32_t* row_slot, const Master<T>* weights, const Master<T>* dloss, T* dy, Accumulate mode) {
  const int64_t K = dims.slots, D = dims.width;
  const T scale = *dloss / static_cast<T>(dims.tokens);
#pragma omp parallel for if (dims.tokens * K * D > parallel_from) schedule(static)
  for (int64_t row = 0; row < dims.tokens * K; ++row) {
    T* const to = dy + row * D;
    if (mode == Accumulate::overwrite) std::fill_n(to, D, T(0));
    if (row_slot[row] < 0) continue;
    const int64_t n = row_slot[row] / K, j = row_slot[row] % K;
    const T own = scale * static_cast<T>(weight_of(weights, n));
    for (int64_t k = 0; k < K; ++k) {
      if (slot_row[n * K + k] < 0) continue;
      const T c = own * overlap_slope(K, products + n * K * K, j, k);
      const T* const from = y + slot_row[n * K + k] * D;
      for (int64_t d = 0; d < D; ++d) to[d] += c * from[d];
    }
  }
}

template void output_overlap_forward(const OutputOverlapDims&, const float*, const int32_t*, const float*, float*, float*);
template void output_overlap_forward(const OutputOverlapDims&, const double*, const int32_t*, const double*, double*, double*);
template void output_overlap_backward(const OutputOverlapDims&, const float*, const float*, const int32_t*, const int32_t*, const float*,
                                      const float*, float*, Accumulate);
template void output_overlap_backward(const OutputOverlapDims&, const double*, const double*, const int32_t*, const int32_t*, const double*,
                                      const double*, double*, Accumulate);

}  // namespace ermoe::cpu
