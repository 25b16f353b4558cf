// AdamW on the CPU: one pass over memory a parameter.
#include "ops/kernels/adamw.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace ermoe::cpu {
namespace {

/// Per-element part of Adam, in the parameter's own precision.
template <typename T>
struct AdamRule {
  explicit AdamRule(const AdamDims& d)
      : beta1(static_cast<T>(d.beta1)),
        beta2(static_cast<T>(d.beta2)),
        eps(static_cast<T>(d.eps)),
        scale(static_cast<T>(d.grad_scale)),
        inverse1(static_cast<T>(1 / d.correction1)),
        inverse2(static_cast<T>(1 / d.correction2)) {}

  T operator()(T g, T& m, T& v) const {
    const T scaled = g * scale;
    m = beta1 * m + (1 - beta1) * scaled;
    v = beta2 * v + (1 - beta2) * scaled * scaled;
    return m * inverse1 / (std::sqrt(v * inverse2) + eps);
  }

  T beta1, beta2, eps, scale, inverse1, inverse2;
};

}  // namespace

template <typename T>
void adamw_step(const AdamDims& dims, T* p, const T* g, T* m, T* v) {
  const AdamRule<T> rule(dims);
  const T lr = static_cast<T>(dims.lr), keep = static_cast<T>(1 - dims.lr * dims.decay);
#pragma omp parallel for simd if (dims.numel > 16384) schedule(static)
  for (int64_t i = 0; i < dims.numel; ++i) p[i] = keep * p[i] - lr * rule(g[i], m[i], v[i]);
}

template <typename T>
void adam_direction(const AdamDims& dims, const T* g, T* m, T* v, T* direction) {
  const AdamRule<T> rule(dims);
#pragma omp parallel for simd if (dims.numel > 16384) schedule(static)
  for (int64_t i = 0; i < dims.numel; ++i) direction[i] = rule(g[i], m[i], v[i]);
}

template <typename T>
double squared_norm(int64_t numel, const T* x) {
  constexpr int64_t chunk = 8192;
  const int64_t chunks = (numel + chunk - 1) / chunk;
  std::vector<double> partial(static_cast<size_t>(chunks));
#pragma omp parallel for if (chunks > 4) schedule(static)
  for (int64_t c = 0; c < chunks; ++c) {
    double lanes[8] = {};  // independent sums, so that the loop vectorises in a fixed order
    const int64_t begin = c * chunk, end = std::min(numel, begin + chunk);
    int64_t i = begin;
    for (; i + 8 <= end; i += 8)
      for (int64_t k = 0; k < 8; ++k) lanes[k] += static_cast<double>(x[i + k]) * static_cast<double>(x[i + k]);
    for (; i < end; ++i) lanes[0] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    for (double lane : lanes) partial[static_cast<size_t>(c)] += lane;
  }
  double sum = 0;
  for (double p : partial) sum += p;
  return sum;
}

template <typename T>
void moving_average(int64_t numel, double decay, const T* x, T* average) {
  const T keep = static_cast<T>(decay), take = static_cast<T>(1 - decay);
#pragma omp parallel for simd if (numel > 16384) schedule(static)
  for (int64_t i = 0; i < numel; ++i) average[i] = keep * average[i] + take * x[i];
}

template void adamw_step(const AdamDims&, float*, const float*, float*, float*);
template void adamw_step(const AdamDims&, double*, const double*, double*, double*);
template void adam_direction(const AdamDims&, const float*, float*, float*, float*);
template void adam_direction(const AdamDims&, const double*, double*, double*, double*);
template double squared_norm(int64_t, const float*);
template double squared_norm(int64_t, const double*);
template void moving_average(int64_t, double, const float*, float*);
template void moving_average(int64_t, double, const double*, double*);

}  // namespace ermoe::cpu
