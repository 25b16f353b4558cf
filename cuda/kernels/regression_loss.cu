// Regression losses on the GPU. Batches are short: one block adds up a loss, in a fixed order and, at the end, in double.
// Contract: ops/kernels/regression_loss.h.
#include "ops/kernels/regression_loss.h"

#include "cuda/device/elementwise.cuh"
#include "cuda/device/reduce.cuh"

namespace ermoe::cuda {
namespace {

constexpr int threads = 256;

__device__ __forceinline__ float cost(RegressionLoss kind, float delta, float d) {
  const float size = fabsf(d);
  switch (kind) {
    case RegressionLoss::l1: return size;
    case RegressionLoss::l2: return d * d;
    case RegressionLoss::huber: return size <= delta ? 0.5f * d * d : delta * (size - 0.5f * delta);
  }
  return 0;
}

/// A NaN stays one.
__device__ __forceinline__ float slope(RegressionLoss kind, float delta, float d) {
  switch (kind) {
    case RegressionLoss::l1: return d > 0 ? 1.0f : d < 0 ? -1.0f : d;
    case RegressionLoss::l2: return 2 * d;
    case RegressionLoss::huber: return d > delta ? delta : d < -delta ? -delta : d;
  }
  return 0;
}

template <typename T>
__global__ void __launch_bounds__(threads) forward_kernel(RegressionDims dims, const T* prediction, const float* target, float* loss) {
  const auto delta = static_cast<float>(dims.delta);
  double mine = 0;
  for (int64_t i = threadIdx.x; i < dims.numel; i += threads)
    mine += static_cast<double>(cost(dims.kind, delta, widen(prediction[i]) - target[i]));
  const double sum = block_sum<threads>(mine);
  if (threadIdx.x == 0) *loss = static_cast<float>(sum / static_cast<double>(dims.numel));
}

template <typename T>
struct Backward {
  RegressionLoss kind;
  float delta, inverse;  // of the number of elements
  const T* prediction;
  const float *target, *dloss;
  T* dprediction;
  Accumulate mode;
  template <int V>
  __device__ void run(int64_t i) const {
    const float scale = *dloss * inverse;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float d = scale * slope(kind, delta, widen(prediction[i + k]) - target[i + k]);
      dprediction[i + k] = narrow<T>(mode == Accumulate::add ? widen(dprediction[i + k]) + d : d);
    }
  }
};

}  // namespace

template <typename T>
void regression_loss_forward(const Stream& stream, const RegressionDims& dims, const T* prediction, const Master<T>* target,
                             Master<T>* loss) {
  forward_kernel<<<1, threads, 0, native(stream)>>>(dims, prediction, target, loss);
  cuda_check(cudaGetLastError(), "regression_loss_forward");
}

template <typename T>
void regression_loss_backward(const Stream& stream, const RegressionDims& dims, const T* prediction, const Master<T>* target,
                              const Master<T>* dloss, T* dprediction, Accumulate mode) {
  const Backward<T> work{.kind = dims.kind,
                         .delta = static_cast<float>(dims.delta),
                         .inverse = static_cast<float>(1 / static_cast<double>(dims.numel)),
                         .prediction = prediction,
                         .target = target,
                         .dloss = dloss,
                         .dprediction = dprediction,
                         .mode = mode};
  elementwise<T>(stream, dims.numel, work, "regression_loss_backward", prediction, target, dprediction);
}

template void regression_loss_forward(const Stream&, const RegressionDims&, const float*, const float*, float*);
template void regression_loss_forward(const Stream&, const RegressionDims&, const bf16*, const float*, float*);
template void regression_loss_backward(const Stream&, const RegressionDims&, const float*, const float*, const float*, float*, Accumulate);
template void regression_loss_backward(const Stream&, const RegressionDims&, const bf16*, const float*, const float*, bf16*, Accumulate);

}  // namespace ermoe::cuda
