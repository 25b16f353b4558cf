// Balance losses on the CPU. Sums over rows are taken in double and in order, a group or a row being one thread's work, so
// that threads cannot change them.
#include "ops/kernels/balance_loss.h"

#include "core/error.h"
#include "ops/cpu/softmax_row.h"
#include "ops/cpu/store.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

namespace ermoe::cpu {
namespace {

constexpr int64_t parallel_from = 16384;  // elements
constexpr double cv_eps = 1e-10;

struct Moments {
  double mean = 0, variance = 0;
};

Moments moments(int64_t n, const double* x) {
  Moments m;
  for (int64_t e = 0; e < n; ++e) m.mean += x[e] / static_cast<double>(n);
  for (int64_t e = 0; e < n; ++e) m.variance += (x[e] - m.mean) * (x[e] - m.mean) / static_cast<double>(n);
  return m;
}

/// Mean over groups of the squared coefficient of variation.
double mean_cv2(const BalanceDims& dims, const double* loads) {
  double sum = 0;
  for (int64_t g = 0; g < dims.groups; ++g) {
    const Moments m = moments(dims.experts, loads + g * dims.experts);
    sum += m.variance / (m.mean * m.mean + cv_eps);
  }
  return sum / static_cast<double>(dims.groups);
}

/// dCV²/dload of a load x whose group has moments m.
double cv2_slope(int64_t experts, const Moments& m, double x) {
  const double below = m.mean * m.mean + cv_eps, n = static_cast<double>(experts);
  return 2 * (x - m.mean) / (n * below) - 2 * m.variance * m.mean / (n * below * below);
}

/// The K-th largest of a row, K <= n; a NaN in the row gives a NaN.
template <typename T>
T kth_largest(int64_t n, int64_t k, const T* x) {
  std::vector<T> sorted(x, x + n);
  if (std::any_of(sorted.begin(), sorted.end(), [](T v) { return std::isnan(v); })) return std::numeric_limits<T>::quiet_NaN();
  std::nth_element(sorted.begin(), sorted.begin() + (k - 1), sorted.end(), std::greater<>());
  return sorted[static_cast<size_t>(k - 1)];
}

/// (clean_e - t)/σ.
template <typename T>
double margin(const BalanceDims& dims, T clean, T threshold) {
  return (static_cast<double>(clean) - static_cast<double>(threshold)) / dims.sigma;
}

}  // namespace

template <typename T>
void switch_balance_forward(const BalanceDims& dims, const T* p, const int32_t* ids, const T* weights, T* shares, T* loss) {
  const int64_t experts = dims.experts, slots = dims.rows * dims.slots;
  int64_t filled = 0;
  std::fill_n(shares, experts, T(0));
  for (int64_t i = 0; i < slots; ++i) {
    check(ids[i] < experts, "[switch_balance] expert {} of {}", ids[i], experts);
    if (ids[i] < 0) continue;
    filled += 1;
    shares[ids[i]] += 1;  // exact below 2^24 in float
  }
  double sum = 0;
  for (int64_t e = 0; e < experts; ++e) shares[e] /= static_cast<T>(std::max<int64_t>(filled, 1));
  for (int64_t n = 0; n < dims.rows; ++n) sum += weight_of(weights, n) * static_cast<double>(row_dot(experts, shares, p + n * experts));
  *loss = static_cast<T>(sum * static_cast<double>(experts) / static_cast<double>(dims.rows));
}

template <typename T>
void switch_balance_backward(const BalanceDims& dims, const T* shares, const T* weights, const T* dloss, T* dp, Accumulate mode) {
  const int64_t experts = dims.experts;
  const T scale = *dloss * static_cast<T>(experts) / static_cast<T>(dims.rows);
#pragma omp parallel for schedule(static) if (dims.rows * experts > parallel_from)
  for (int64_t n = 0; n < dims.rows; ++n) {
    const T own = scale * static_cast<T>(weight_of(weights, n));
    store(experts, dp + n * experts, mode, [=](int64_t e) { return own * shares[e]; });
  }
}

template <typename T>
void z_loss_forward(const BalanceDims& dims, const T* logits, const T* weights, T* lse, T* loss) {
#pragma omp parallel for schedule(static) if (dims.rows * dims.experts > parallel_from)
  for (int64_t n = 0; n < dims.rows; ++n) lse[n] = row_lse(dims.experts, logits + n * dims.experts);
  double sum = 0;
  for (int64_t n = 0; n < dims.rows; ++n) sum += weight_of(weights, n) * static_cast<double>(lse[n]) * static_cast<double>(lse[n]);
  *loss = static_cast<T>(sum / static_cast<double>(dims.rows));
}

template <typename T>
void z_loss_backward(const BalanceDims& dims, const T* logits, const T* weights, const T* lse, const T* dloss, T* dlogits,
                     Accumulate mode) {
  const int64_t experts = dims.experts;
  const T scale = 2 * *dloss / static_cast<T>(dims.rows);
#pragma omp parallel for schedule(static) if (dims.rows * experts > parallel_from)
  for (int64_t n = 0; n < dims.rows; ++n) {
    const T* const x = logits + n * experts;
    const T shift = lse[n], factor = scale * static_cast<T>(weight_of(weights, n)) * shift;
    store(experts, dlogits + n * experts, mode, [=](int64_t e) { return factor * exp_of(x[e] - shift); });
  }
}

template <typename T>
void importance_loss_forward(const BalanceDims& dims, const T* p, const T* weights, double* loads, T* loss) {
  const int64_t experts = dims.experts, rows = dims.group_rows();
#pragma omp parallel for schedule(static) if (dims.rows * experts > parallel_from)
  for (int64_t g = 0; g < dims.groups; ++g) {
    double* const load = loads + g * experts;
    std::fill_n(load, experts, 0.0);
    for (int64_t n = g * rows; n < (g + 1) * rows; ++n)
      for (int64_t e = 0; e < experts; ++e) load[e] += presence_of(weights, n) * static_cast<double>(p[n * experts + e]);
  }
  *loss = static_cast<T>(mean_cv2(dims, loads));
}

template <typename T>
void importance_loss_backward(const BalanceDims& dims, const double* loads, const T* weights, const T* dloss, T* dp, Accumulate mode) {
  const int64_t experts = dims.experts;
  const double scale = static_cast<double>(*dloss) / static_cast<double>(dims.groups);
#pragma omp parallel for schedule(static) if (dims.rows * experts > parallel_from)
  for (int64_t g = 0; g < dims.groups; ++g) {
    const double* const load = loads + g * experts;
    const Moments m = moments(experts, load);
    for (int64_t n = g * dims.group_rows(); n < (g + 1) * dims.group_rows(); ++n) {
      const double own = scale * presence_of(weights, n);
      store(experts, dp + n * experts, mode, [=](int64_t e) { return static_cast<T>(own * cv2_slope(experts, m, load[e])); });
    }
  }
}

template <typename T>
void load_loss_forward(const BalanceDims& dims, const T* clean, const T* noisy, const T* weights, T* thresholds, double* loads, T* loss) {
  const int64_t experts = dims.experts, rows = dims.group_rows();
#pragma omp parallel for schedule(static) if (dims.rows * experts > parallel_from)
  for (int64_t g = 0; g < dims.groups; ++g) {
    double* const load = loads + g * experts;
    std::fill_n(load, experts, 0.0);
    for (int64_t n = g * rows; n < (g + 1) * rows; ++n) {
      const T *c = clean + n * experts, *x = noisy + n * experts;
      thresholds[n] = kth_largest(experts, dims.slots, x);
      const double half = 0.5 * weight_of(weights, n);
      for (int64_t e = 0; e < experts; ++e)
        load[e] += half * std::erfc(-margin(dims, c[e], thresholds[n]) * 0.70710678118654752) / static_cast<double>(rows);
    }
  }
  *loss = static_cast<T>(mean_cv2(dims, loads));
}

template <typename T>
void load_loss_backward(const BalanceDims& dims, const T* clean, const T* weights, const T* thresholds, const double* loads, const T* dloss,
                        T* dclean, Accumulate mode) {
  const int64_t experts = dims.experts, rows = dims.group_rows();
  const double density_0 = 0.39894228040143268;  // φ(0) = 1/sqrt(2π)
  const double scale = static_cast<double>(*dloss) * density_0 / (dims.sigma * static_cast<double>(dims.groups * rows));
#pragma omp parallel for schedule(static) if (dims.rows * experts > parallel_from)
  for (int64_t g = 0; g < dims.groups; ++g) {
    const double* const load = loads + g * experts;
    const Moments m = moments(experts, load);
    for (int64_t n = g * rows; n < (g + 1) * rows; ++n) {
      const T *c = clean + n * experts, t = thresholds[n];
      const double own = scale * weight_of(weights, n);
      store(experts, dclean + n * experts, mode, [=, &dims](int64_t e) {
        const double z = margin(dims, c[e], t);
        return static_cast<T>(own * cv2_slope(experts, m, load[e]) * std::exp(-0.5 * z * z));
      });
    }
  }
}

template void switch_balance_forward(const BalanceDims&, const float*, const int32_t*, const float*, float*, float*);
template void switch_balance_forward(const BalanceDims&, const double*, const int32_t*, const double*, double*, double*);
template void switch_balance_backward(const BalanceDims&, const float*, const float*, const float*, float*, Accumulate);
template void switch_balance_backward(const BalanceDims&, const double*, const double*, const double*, double*, Accumulate);
template void z_loss_forward(const BalanceDims&, const float*, const float*, float*, float*);
template void z_loss_forward(const BalanceDims&, const double*, const double*, double*, double*);
template void z_loss_backward(const BalanceDims&, const float*, const float*, const float*, const float*, float*, Accumulate);
template void z_loss_backward(const BalanceDims&, const double*, const double*, const double*, const double*, double*, Accumulate);
template void importance_loss_forward(const BalanceDims&, const float*, const float*, double*, float*);
template void importance_loss_forward(const BalanceDims&, const double*, const double*, double*, double*);
template void importance_loss_backward(const BalanceDims&, const double*, const float*, const float*, float*, Accumulate);
template void importance_loss_backward(const BalanceDims&, const double*, const double*, const double*, double*, Accumulate);
template void load_loss_forward(const BalanceDims&, const float*, const float*, const float*, float*, double*, float*);
template void load_loss_forward(const BalanceDims&, const double*, const double*, const double*, double*, double*, double*);
template void load_loss_backward(const BalanceDims&, const float*, const float*, const float*, const double*, const float*, float*,
                                 Accumulate);
template void load_loss_backward(const BalanceDims&, const double*, const double*, const double*, const double*, const double*, double*,
                                 Accumulate);

}  // namespace ermoe::cpu
