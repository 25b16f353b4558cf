// Rows of softmax, vectorised: shared by the attention kernels and the losses.
#pragma once

#include "ops/cpu/vector_math.h"

#include <algorithm>
#include <cstdint>
#include <limits>

namespace ermoe::cpu {

/// max_j x_j, NaNs passed over; -infinity where n = 0. Sixteen running maxima, because the compiler may not reorder the
/// comparisons of a single one.
template <typename T>
T row_max(int64_t n, const T* x) {
  constexpr int64_t lanes = 16;
  T running[lanes];
  std::fill_n(running, lanes, -std::numeric_limits<T>::infinity());
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes)
#pragma omp simd
    for (int64_t l = 0; l < lanes; ++l) running[l] = running[l] < x[j + l] ? x[j + l] : running[l];
  for (; j < n; ++j) running[0] = std::max(running[0], x[j]);
  return *std::max_element(running, running + lanes);
}

/// x_j becomes e^(x_j - shift) in place; returns their sum.
template <typename T>
T exp_row(int64_t n, T shift, T* x) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; ++j) {
    x[j] = exp_of(x[j] - shift);
    sum += x[j];
  }
  return sum;
}

/// log Σ_j e^(x_j), without overflow.
template <typename T>
T row_lse(int64_t n, const T* x) {
  const T largest = row_max(n, x);
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; ++j) sum += exp_of(x[j] - largest);
  return largest + std::log(sum);
}

template <typename T>
T row_dot(int64_t n, const T* a, const T* b) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; ++j) sum += a[j] * b[j];
  return sum;
}

}  // namespace ermoe::cpu
