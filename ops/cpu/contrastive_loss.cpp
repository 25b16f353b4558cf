// The losses over pairs on the CPU: a row of products is one thread's work.
#include "ops/kernels/contrastive_loss.h"

#include "ops/cpu/blas.h"
#include "ops/cpu/softmax_row.h"

#include <cmath>

namespace ermoe::cpu {
namespace {

constexpr int64_t parallel_from = 8192;  // products: below, starting threads costs more than the work

/// log(1 + e^u), without overflow.
template <typename T>
T softplus(T u) {
  return (u > 0 ? u : T(0)) + std::log1p(exp_of(-std::fabs(u)));
}

}  // namespace

template <typename T>
void pair_products(const PairDims& dims, const T* own, const T* all, Master<T>* products) {
  gemm(Trans::no, Trans::yes, dims.rows, dims.cols, dims.width, T(1), own, dims.width, all, dims.width, T(0), products, dims.cols);
}

template <typename T>
void pair_features_backward(const PairDims& dims, const T* slopes, const T* all, T* down, Accumulate mode) {
  gemm(Trans::no, Trans::no, dims.rows, dims.width, dims.cols, T(1), slopes, dims.cols, all, dims.width,
       mode == Accumulate::add ? T(1) : T(0), down, dims.width);
}

template <typename T>
void contrastive_rows(const PairDims& dims, const PairTile<T>& tile, T* shifts, T* losses) {
  const T scale = std::exp(*tile.log_scale);
#pragma omp parallel for schedule(static) if (dims.products() > parallel_from)
  for (int64_t i = 0; i < dims.rows; ++i) {
    const T* const x = tile.products + i * dims.cols;
    const T largest = row_max(dims.cols, x);
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < dims.cols; ++j) sum += exp_of(scale * (x[j] - largest));
    T* const shift = shifts + pair_shift_numbers * i;
    shift[0] = largest;
    shift[1] = std::log(sum);
    losses[i] = static_cast<T>(dims.weight) * (shift[1] - scale * (x[dims.first + i] - largest));
  }
}

template <typename T>
void contrastive_slopes(const PairDims& dims, const PairTile<Master<T>>& tile, const PairShifts<Master<T>>& shifts, const Master<T>* dloss,
                        const PairSlopes<T>& out) {
  const T scale = std::exp(*tile.log_scale), weight = static_cast<T>(dims.weight) * *dloss;
#pragma omp parallel for schedule(static) if (dims.products() > parallel_from)
  for (int64_t i = 0; i < dims.rows; ++i) {
    const T* const x = tile.products + i * dims.cols;
    T* const slopes = out.products + i * dims.cols;
    const T *const all = shifts.all, *const own = shifts.own + pair_shift_numbers * i;
    const T largest = own[0], rest = own[1], matching = x[dims.first + i];
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < dims.cols; ++j) {
      const T* const other = all + pair_shift_numbers * j;
      const T of_row = exp_of(scale * (x[j] - largest) - rest), of_column = exp_of(scale * (x[j] - other[0]) - other[1]);
      slopes[j] = weight * scale * (of_row + of_column - (j == dims.first + i ? T(2) : T(0)));
      sum += of_row * (x[j] - matching);  // the softmax adds up to 1: no difference of large sums
    }
    if (out.log_scale != nullptr) out.log_scale[i] = weight * scale * sum;
  }
}

template <typename T>
void sigmoid_pair_rows(const PairDims& dims, const PairTile<T>& tile, T* losses) {
  const T scale = std::exp(*tile.log_scale), bias = *tile.bias;
#pragma omp parallel for schedule(static) if (dims.products() > parallel_from)
  for (int64_t i = 0; i < dims.rows; ++i) {
    const T* const x = tile.products + i * dims.cols;
    T sum = 0;
    for (int64_t j = 0; j < dims.cols; ++j) {
      const T logit = scale * x[j] + bias;
      sum += softplus(j == dims.first + i ? -logit : logit);
    }
    losses[i] = static_cast<T>(dims.weight) * sum;
  }
}

template <typename T>
void sigmoid_pair_slopes(const PairDims& dims, const PairTile<Master<T>>& tile, const Master<T>* dloss, const PairSlopes<T>& out) {
  const T scale = std::exp(*tile.log_scale), bias = *tile.bias, weight = static_cast<T>(dims.weight) * *dloss;
#pragma omp parallel for schedule(static) if (dims.products() > parallel_from)
  for (int64_t i = 0; i < dims.rows; ++i) {
    const T* const x = tile.products + i * dims.cols;
    T* const slopes = out.products + i * dims.cols;
    T of_scale = 0, of_bias = 0;
    for (int64_t j = 0; j < dims.cols; ++j) {
      const T sign = j == dims.first + i ? T(-1) : T(1);
      const T slope = weight * sign / (1 + exp_of(-sign * (scale * x[j] + bias)));
      slopes[j] = slope * scale;
      of_scale += slope * scale * x[j];
      of_bias += slope;
    }
    if (out.log_scale != nullptr) out.log_scale[i] = of_scale;
    if (out.bias != nullptr) out.bias[i] = of_bias;
  }
}

template <typename T>
void pair_sum(int64_t n, const T* values, T* sum, Accumulate mode) {
  double total = mode == Accumulate::add ? static_cast<double>(*sum) : 0;
  for (int64_t i = 0; i < n; ++i) total += static_cast<double>(values[i]);
  *sum = static_cast<T>(total);
}

template void pair_products(const PairDims&, const float*, const float*, float*);
template void pair_products(const PairDims&, const double*, const double*, double*);
template void pair_features_backward(const PairDims&, const float*, const float*, float*, Accumulate);
template void pair_features_backward(const PairDims&, const double*, const double*, double*, Accumulate);
template void contrastive_rows(const PairDims&, const PairTile<float>&, float*, float*);
template void contrastive_rows(const PairDims&, const PairTile<double>&, double*, double*);
template void contrastive_slopes<float>(const PairDims&, const PairTile<float>&, const PairShifts<float>&, const float*,
                                        const PairSlopes<float>&);
template void contrastive_slopes<double>(const PairDims&, const PairTile<double>&, const PairShifts<double>&, const double*,
                                         const PairSlopes<double>&);
template void sigmoid_pair_rows(const PairDims&, const PairTile<float>&, float*);
template void sigmoid_pair_rows(const PairDims&, const PairTile<double>&, double*);
template void sigmoid_pair_slopes<float>(const PairDims&, const PairTile<float>&, const float*, const PairSlopes<float>&);
template void sigmoid_pair_slopes<double>(const PairDims&, const PairTile<double>&, const double*, const PairSlopes<double>&);
template void pair_sum(int64_t, const float*, float*, Accumulate);
template void pair_sum(int64_t, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
