// Combine weights on the CPU: K numbers a token, tokens independent. The gradient of the one temperature is summed in
// double over fixed pieces of the tokens, so that it does not depend on the number of threads.
#include "ops/kernels/combine_weights.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace ermoe::cpu {
namespace {

/// The score that slot id stands for.
template <typename T>
T score_of(const CombineWeightsDims& dims, const CombineWeightsInputs<T>& in, int64_t n, int32_t id) {
  if (id < dims.experts) return in.scores[n * dims.experts + id];
  return in.threshold == nullptr || std::isinf(*in.threshold) ? T(0) : *in.threshold;
}

template <typename T>
T scale_of(const CombineWeightsDims& dims, const CombineWeightsInputs<T>& in) {
  return dims.rule == CombineRule::softmax ? std::exp(*in.temperature) : T(1);
}

/// Σ over the filled slots of w_k dw_k: the part of the normalising sum in every gradient of the token.
template <typename T>
T weighted_gradient(const CombineWeightsDims& dims, const int32_t* ids, const T* w, const T* dw) {
  T sum = 0;
  for (int64_t k = 0; k < dims.slots; ++k)
    if (ids[k] >= 0) sum += w[k] * dw[k];
  return sum;
}

template <typename T>
void weigh_token(const CombineWeightsDims& dims, const CombineWeightsInputs<T>& in, T scale, int64_t n, T* w) {
  const int32_t* ids = in.ids + n * dims.slots;
  T largest = -std::numeric_limits<T>::infinity();
  for (int64_t k = 0; k < dims.slots; ++k) {
    w[k] = ids[k] < 0 ? T(0) : score_of(dims, in, n, ids[k]) * scale;
    if (ids[k] >= 0) largest = std::max(largest, w[k]);
  }
  if (dims.rule == CombineRule::raw) return;
  T sum = 0;
  for (int64_t k = 0; k < dims.slots; ++k) {
    if (ids[k] < 0) continue;
    w[k] = dims.rule == CombineRule::softmax ? std::exp(w[k] - largest) : std::max(w[k], T(dims.floor));
    sum += w[k];
  }
  for (int64_t k = 0; k < dims.slots; ++k)
    if (ids[k] >= 0) w[k] /= sum;
}

/// Gradient of the token's scores, added at their experts.
template <typename T>
void backward_token(const CombineWeightsDims& dims, const CombineWeightsInputs<T>& in, T scale, int64_t n, const T* w, const T* dw,
                    T* dscores) {
  const int32_t* ids = in.ids + n * dims.slots;
  const T mean = weighted_gradient(dims, ids, w, dw);
  T sum = 0;  // the normaliser of the normalized rule
  for (int64_t k = 0; k < dims.slots; ++k)
    if (ids[k] >= 0) sum += std::max(score_of(dims, in, n, ids[k]), T(dims.floor));
  for (int64_t k = 0; k < dims.slots; ++k) {
    if (ids[k] < 0 || ids[k] >= dims.experts) continue;
    T& to = dscores[ids[k]];
    switch (dims.rule) {
      case CombineRule::raw: to += dw[k]; break;
      case CombineRule::softmax: to += w[k] * (dw[k] - mean) * scale; break;
      case CombineRule::normalized:
        if (score_of(dims, in, n, ids[k]) > T(dims.floor)) to += (dw[k] - mean) / sum;
        break;
    }
  }
}

}  // namespace

template <typename T>
void combine_weights_forward(const CombineWeightsDims& dims, const CombineWeightsInputs<T>& in, T* w) {
  const T scale = scale_of(dims, in);
#pragma omp parallel for if (dims.tokens * dims.slots > 8192) schedule(static)
  for (int64_t n = 0; n < dims.tokens; ++n) weigh_token(dims, in, scale, n, w + n * dims.slots);
}

template <typename T>
void combine_weights_backward_scores(const CombineWeightsDims& dims, const CombineWeightsInputs<T>& in, const T* w, const T* dw, T* dscores,
                                     Accumulate mode) {
  const T scale = scale_of(dims, in);
#pragma omp parallel for if (dims.tokens * dims.slots > 8192) schedule(static)
  for (int64_t n = 0; n < dims.tokens; ++n) {
    T* to = dscores + n * dims.experts;
    if (mode == Accumulate::overwrite) std::fill_n(to, dims.experts, T(0));
    backward_token(dims, in, scale, n, w + n * dims.slots, dw + n * dims.slots, to);
  }
}

template <typename T>
void combine_weights_backward_temperature(const CombineWeightsDims& dims, const CombineWeightsInputs<T>& in, const T* w, const T* dw,
                                          T* dtemperature, Accumulate mode) {
  constexpr int64_t pieces = 64;
  std::array<double, pieces> sums{};
  const T scale = scale_of(dims, in);
#pragma omp parallel for if (dims.tokens * dims.slots > 8192) schedule(static)
  for (int64_t piece = 0; piece < pieces; ++piece) {
    double sum = 0;
    for (int64_t n = dims.tokens * piece / pieces; n < dims.tokens * (piece + 1) / pieces; ++n) {
      const int64_t at = n * dims.slots;
      const T mean = weighted_gradient(dims, in.ids + at, w + at, dw + at);
      for (int64_t k = 0; k < dims.slots; ++k)  // d exp(t) / dt = exp(t)
        if (in.ids[at + k] >= 0) sum += w[at + k] * (dw[at + k] - mean) * score_of(dims, in, n, in.ids[at + k]) * scale;
    }
    sums[static_cast<size_t>(piece)] = sum;
  }
  double total = 0;
  for (double sum : sums) total += sum;
  *dtemperature = mode == Accumulate::add ? *dtemperature + static_cast<T>(total) : static_cast<T>(total);
}

template void combine_weights_forward(const CombineWeightsDims&, const CombineWeightsInputs<float>&, float*);
template void combine_weights_forward(const CombineWeightsDims&, const CombineWeightsInputs<double>&, double*);
template void combine_weights_backward_scores(const CombineWeightsDims&, const CombineWeightsInputs<float>&, const float*, const float*,
                                              float*, Accumulate);
template void combine_weights_backward_scores(const CombineWeightsDims&, const CombineWeightsInputs<double>&, const double*, const double*,
                                              double*, Accumulate);
template void combine_weights_backward_temperature(const CombineWeightsDims&, const CombineWeightsInputs<float>&, const float*,
                                                   const float*, float*, Accumulate);
template void combine_weights_backward_temperature(const CombineWeightsDims&, const CombineWeightsInputs<double>&, const double*,
                                                   const double*, double*, Accumulate);

}  // namespace ermoe::cpu
