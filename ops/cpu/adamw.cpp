// AdamW on the CPU: one pass over memory a parameter.
#include "ops/kernels/adamw.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace ermoe::cpu {
namespace {

/// Per-element part of Adam, in the parameter's own precision.
template <typename T>
struct AdamOf {
  explicit AdamOf(const AdamDims& d)
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
  const AdamOf<T> adam(dims);
  const T lr = static_cast<T>(dims.lr), keep = static_cast<T>(1 - dims.lr * dims.decay);
#pragma omp parallel for simd if (dims.numel > 16384) schedule(static)
  for (int64_t i = 0; i < dims.numel; ++i) p[i] = keep * p[i] - lr * adam(g[i], m[i], v[i]);
}

template <typename T, typename To>
void adam_direction(const AdamRule& rule, const StepState* state, int64_t numel, double lr_scale, const T* g, T* m, T* v, To* direction) {
  if (state->accepted == 0) {
    std::fill_n(direction, numel, To{});
    return;
  }
  const AdamDims dims = adam_dims(rule, *state, lr_scale, 0);
  const AdamOf<T> adam(dims);
  const T lr = static_cast<T>(dims.lr);
#pragma omp parallel for simd if (numel > 16384) schedule(static)
  for (int64_t i = 0; i < numel; ++i) direction[i] = To(lr * adam(g[i], m[i], v[i]));
}

template <typename T>
void adamw_table(const AdamRule& rule, int64_t rows, const AdamwRow<T>* table, const StepState* state) {
  if (state->accepted == 0) return;
  for (const AdamwRow<T>* row = table; row != table + rows; ++row) {
    AdamDims dims = adam_dims(rule, *state, row->lr_scale, row->decay);
    dims.numel = row->numel;
    adamw_step(dims, row->p, row->g, row->m, row->v);
    for (int64_t i = 0; row->compute != nullptr && i < row->numel; ++i) row->compute[i] = bf16(static_cast<float>(row->p[i]));
  }
}

template <typename T>
void squared_norm(int64_t numel, const T* x, double* sum) {
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
  *sum = 0;
  for (double p : partial) *sum += p;
}

void judge_step(const AdamRule& rule, double clip, int64_t count, const double* squares, int64_t fault_count, const float* faults,
                StepState* state) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += squares[i];
  state->grad_norm = std::sqrt(sum);
  const bool sound = std::isfinite(state->grad_norm) && std::all_of(faults, faults + fault_count, [](float f) { return f == 0; });
  if (sound)
    count_step(rule, clip > 0 && state->grad_norm > clip ? clip / state->grad_norm : 1, *state);
  else
    state->accepted = 0;
}

void add_up(int64_t count, const double* values, double* sum) {
  double total = 0;
  for (int64_t i = 0; i < count; ++i) total += values[i];
  *sum = total;
}

void accept_step(const AdamRule& rule, double lr, double grad_scale, StepState* state) {
  state->lr = lr;
  count_step(rule, grad_scale, *state);
}

template <typename T>
void moving_average(int64_t numel, double decay, const StepState* state, const T* x, T* average) {
  if (state != nullptr && state->accepted == 0) return;
  if (state != nullptr) decay = average_decay(decay, state->steps);
  const T keep = static_cast<T>(decay), take = static_cast<T>(1 - decay);
#pragma omp parallel for simd if (numel > 16384) schedule(static)
  for (int64_t i = 0; i < numel; ++i) average[i] = keep * average[i] + take * x[i];
}

template void adamw_step(const AdamDims&, float*, const float*, float*, float*);
template void adamw_step(const AdamDims&, double*, const double*, double*, double*);
template void adam_direction(const AdamRule&, const StepState*, int64_t, double, const float*, float*, float*, float*);
template void adam_direction(const AdamRule&, const StepState*, int64_t, double, const double*, double*, double*, double*);
template void adam_direction(const AdamRule&, const StepState*, int64_t, double, const float*, float*, float*, bf16*);
template void adamw_table(const AdamRule&, int64_t, const AdamwRow<float>*, const StepState*);
template void adamw_table(const AdamRule&, int64_t, const AdamwRow<double>*, const StepState*);
template void squared_norm(int64_t, const float*, double*);
template void squared_norm(int64_t, const double*, double*);
template void moving_average(int64_t, double, const StepState*, const float*, float*);
template void moving_average(int64_t, double, const StepState*, const double*, double*);

}  // namespace ermoe::cpu
