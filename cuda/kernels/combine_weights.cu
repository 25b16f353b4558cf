// Combine weights on the GPU: a thread a token, everything read again rather than stored, for it is a handful of numbers in the
// cache. In float alone. Contract: ops/kernels/combine_weights.h.
#include "ops/kernels/combine_weights.h"

#include "cuda/device/grid.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int threads = 256;
constexpr int64_t temperature_blocks = 128;

/// The slots of one token.
struct Slots {
  CombineWeightsDims dims;
  const float* scores;  // (E)
  const int32_t* ids;   // (K)
  float free_score, scale;

  __device__ Slots(const CombineWeightsDims& d, const CombineWeightsInputs<float>& in, int64_t token)
      : dims(d), scores(in.scores + token * d.experts), ids(in.ids + token * d.slots) {
    free_score = in.threshold == nullptr || isinf(*in.threshold) ? 0.0f : *in.threshold;
    scale = d.rule == CombineRule::softmax ? expf(*in.temperature) : 1.0f;
  }

  __device__ bool filled(int64_t k) const { return ids[k] >= 0; }
  __device__ float score(int64_t k) const { return ids[k] < dims.experts ? scores[ids[k]] : free_score; }
  __device__ float floored(int64_t k) const { return fmaxf(score(k), static_cast<float>(CombineWeightsDims::floor)); }

  __device__ float largest() const {
    float value = -INFINITY;
    for (int64_t k = 0; k < dims.slots; ++k)
      if (filled(k)) value = fmaxf(value, score(k) * scale);
    return value;
  }
  /// The numerator of slot k's weight.
  __device__ float part(int64_t k, float shift) const {
    if (dims.rule == CombineRule::raw) return score(k);
    return dims.rule == CombineRule::softmax ? expf(score(k) * scale - shift) : floored(k);
  }
  /// Σ over the filled slots of w_k dw_k: the part of the normalising sum in every gradient of the token.
  __device__ float mean_gradient(const float* w, const float* dw) const {
    float sum = 0;
    for (int64_t k = 0; k < dims.slots; ++k)
      if (filled(k)) sum = fmaf(w[k], dw[k], sum);
    return sum;
  }
};

__global__ void __launch_bounds__(threads) forward_kernel(CombineWeightsDims dims, CombineWeightsInputs<float> in, float* w) {
  const int64_t token = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (token >= dims.tokens) return;
  const Slots slots(dims, in, token);
  const float shift = dims.rule == CombineRule::softmax ? slots.largest() : 0.0f;
  float sum = 0;
  for (int64_t k = 0; k < dims.slots; ++k)
    if (slots.filled(k)) sum += slots.part(k, shift);
  if (dims.rule == CombineRule::raw) sum = 1;
  for (int64_t k = 0; k < dims.slots; ++k) w[token * dims.slots + k] = slots.filled(k) ? slots.part(k, shift) / sum : 0.0f;
}

/// The ids of a token's filled slots differ: each adds to a score of its own.
__global__ void __launch_bounds__(threads) scores_kernel(CombineWeightsDims dims, CombineWeightsInputs<float> in, const float* w,
                                                         const float* dw, float* dscores, Accumulate mode) {
  const int64_t token = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (token >= dims.tokens) return;
  const Slots slots(dims, in, token);
  w += token * dims.slots;
  dw += token * dims.slots;
  dscores += token * dims.experts;
  if (mode == Accumulate::overwrite)
    for (int64_t e = 0; e < dims.experts; ++e) dscores[e] = 0;
  const float mean = slots.mean_gradient(w, dw);
  float sum = 0;  // of the floored scores
  if (dims.rule == CombineRule::normalized)
    for (int64_t k = 0; k < dims.slots; ++k)
      if (slots.filled(k)) sum += slots.floored(k);
  for (int64_t k = 0; k < dims.slots; ++k) {
    const int32_t expert = slots.ids[k];
    if (expert < 0 || expert >= dims.experts) continue;
    if (dims.rule == CombineRule::raw) {
      dscores[expert] += dw[k];
    } else if (dims.rule == CombineRule::softmax) {
      dscores[expert] += w[k] * (dw[k] - mean) * slots.scale;
    } else if (slots.score(k) > static_cast<float>(CombineWeightsDims::floor)) {
      dscores[expert] += (dw[k] - mean) / sum;
    }
  }
}

__global__ void __launch_bounds__(threads)
    temperature_kernel(CombineWeightsDims dims, CombineWeightsInputs<float> in, const float* w, const float* dw, double* partial) {
  double sum = 0;
  for (int64_t token = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x; token < dims.tokens; token += gridDim.x * threads) {
    const Slots slots(dims, in, token);
    const float *const own = w + token * dims.slots, *const down = dw + token * dims.slots, mean = slots.mean_gradient(own, down);
    for (int64_t k = 0; k < dims.slots; ++k)  // d exp(t) / dt = exp(t)
      if (slots.filled(k)) sum += static_cast<double>(own[k] * (down[k] - mean) * slots.score(k) * slots.scale);
  }
  sum = block_sum<threads>(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(threads) total_kernel(const double* partial, float* dtemperature, Accumulate mode) {
  const double total = block_sum<threads>(threadIdx.x < temperature_blocks ? partial[threadIdx.x] : 0.0);
  if (threadIdx.x == 0) *dtemperature = mode == Accumulate::add ? *dtemperature + static_cast<float>(total) : static_cast<float>(total);
}

}  // namespace

int64_t combine_weights_scratch(const CombineWeightsDims&) { return temperature_blocks; }

template <typename T>
void combine_weights_forward(const Stream& stream, const CombineWeightsDims& dims, const CombineWeightsInputs<T>& in, T* w) {
  if (dims.tokens == 0) return;
  forward_kernel<<<blocks_for(dims.tokens, threads), threads, 0, native(stream)>>>(dims, in, w);
  cuda_check(cudaGetLastError(), "combine_weights_forward");
}

template <typename T>
void combine_weights_backward_scores(const Stream& stream, const CombineWeightsDims& dims, const CombineWeightsInputs<T>& in, const T* w,
                                     const T* dw, T* dscores, Accumulate mode) {
  if (dims.tokens * dims.experts == 0) return;
  scores_kernel<<<blocks_for(dims.tokens, threads), threads, 0, native(stream)>>>(dims, in, w, dw, dscores, mode);
  cuda_check(cudaGetLastError(), "combine_weights_backward_scores");
}

template <typename T>
void combine_weights_backward_temperature(const Stream& stream, const CombineWeightsDims& dims, const CombineWeightsInputs<T>& in,
                                          const T* w, const T* dw, T* dtemperature, Accumulate mode, double* scratch) {
  temperature_kernel<<<static_cast<unsigned>(temperature_blocks), threads, 0, native(stream)>>>(dims, in, w, dw, scratch);
  cuda_check(cudaGetLastError(), "combine_weights_backward_temperature");
  total_kernel<<<1, threads, 0, native(stream)>>>(scratch, dtemperature, mode);
  cuda_check(cudaGetLastError(), "combine_weights_backward_temperature: total");
}

template void combine_weights_forward(const Stream&, const CombineWeightsDims&, const CombineWeightsInputs<float>&, float*);
template void combine_weights_backward_scores(const Stream&, const CombineWeightsDims&, const CombineWeightsInputs<float>&, const float*,
                                              const float*, float*, Accumulate);
template void combine_weights_backward_temperature(const Stream&, const CombineWeightsDims&, const CombineWeightsInputs<float>&,
                                                   const float*, const float*, float*, Accumulate, double*);

}  // namespace ermoe::cuda
