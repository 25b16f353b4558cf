// Losses over classes on the GPU: a block a row, whose logits come from the cache after their first reading. Rows are few and
// short beside the rest of a step. Sums are float, the mean over rows is added up in double by one block, in a fixed order.
// Contract: ops/kernels/cross_entropy.h.
#include "ops/kernels/cross_entropy.h"

#include "cuda/device/pack.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int threads = 256;

/// One row of the inputs.
template <typename T>
struct Row {
  const T* x;
  const float *t, *w;
  int64_t n;

  __device__ Row(const CrossEntropyDims& dims, const T* logits, const float* targets, const float* weights)
      : x(logits + blockIdx.x * dims.classes), t(targets + blockIdx.x * dims.classes), w(weights), n(dims.classes) {}
  __device__ float logit(int64_t y) const { return widen(x[y]); }
  __device__ float weight(int64_t y) const { return w == nullptr ? 1.0f : w[y]; }
  /// Σ over the classes, by all threads.
  template <typename Fn>
  __device__ float sum(Fn value) const {
    float mine = 0;
    for (int64_t y = threadIdx.x; y < n; y += threads) mine += value(y);
    return block_sum<threads>(mine);
  }
};

/// *mean = Σ values / n.
__global__ void __launch_bounds__(threads) mean_kernel(int64_t n, const float* values, float* mean) {
  double mine = 0;
  for (int64_t i = threadIdx.x; i < n; i += threads) mine += static_cast<double>(values[i]);
  const double sum = block_sum<threads>(mine);
  if (threadIdx.x == 0) *mean = static_cast<float>(sum / static_cast<double>(n));
}

template <typename T>
__global__ void __launch_bounds__(threads)
    forward_kernel(CrossEntropyDims dims, const T* logits, const float* targets, const float* weights, float* lse, float* row_losses) {
  const Row<T> row(dims, logits, targets, weights);
  float mine = -INFINITY;  // NaNs are passed over here and found by the sum
  for (int64_t y = threadIdx.x; y < row.n; y += threads) mine = fmaxf(mine, row.logit(y));
  const float largest = block_max<threads>(mine);
  const float shift = largest + logf(row.sum([&](int64_t y) { return expf(row.logit(y) - largest); }));
  float loss = row.sum([&](int64_t y) { return row.weight(y) * row.t[y] * (shift - row.logit(y)); });
  if (dims.offset == EntropyOffset::targets) loss += row.sum([&](int64_t y) { return row.t[y] > 0 ? row.t[y] * logf(row.t[y]) : 0.0f; });
  if (threadIdx.x == 0) lse[blockIdx.x] = shift, row_losses[blockIdx.x] = loss;
}

template <typename T>
__device__ __forceinline__ void write(T* to, float value, Accumulate mode) {
  *to = narrow<T>(mode == Accumulate::add ? widen(*to) + value : value);
}

template <typename T>
__global__ void __launch_bounds__(threads)
    backward_kernel(CrossEntropyDims dims, const T* logits, const float* targets, const float* weights, const float* lse,
                    const float* dloss, T* dlogits, Accumulate mode) {
  const Row<T> row(dims, logits, targets, weights);
  const float mass = row.sum([&](int64_t y) { return row.weight(y) * row.t[y]; });
  const float shift = lse[blockIdx.x], scale = *dloss / static_cast<float>(dims.batch);
  T* const dx = dlogits + blockIdx.x * dims.classes;
  for (int64_t y = threadIdx.x; y < row.n; y += threads)
    write(dx + y, scale * (expf(row.logit(y) - shift) * mass - row.weight(y) * row.t[y]), mode);
}

template <typename T>
__global__ void __launch_bounds__(threads)
    sigmoid_forward_kernel(CrossEntropyDims dims, const T* logits, const float* targets, const float* weights, float* row_losses) {
  const Row<T> row(dims, logits, targets, weights);
  const float loss = row.sum([&](int64_t y) {
    const float x = row.logit(y);
    return row.weight(y) * ((x > 0 ? x : 0.0f) - x * row.t[y] + log1pf(expf(-fabsf(x))));
  });
  if (threadIdx.x == 0) row_losses[blockIdx.x] = loss;
}

template <typename T>
__global__ void __launch_bounds__(threads) sigmoid_backward_kernel(CrossEntropyDims dims, const T* logits, const float* targets,
                                                                   const float* weights, const float* dloss, T* dlogits, Accumulate mode) {
  const Row<T> row(dims, logits, targets, weights);
  const float scale = *dloss / static_cast<float>(dims.batch);
  T* const dx = dlogits + blockIdx.x * dims.classes;
  for (int64_t y = threadIdx.x; y < row.n; y += threads)
    write(dx + y, scale * row.weight(y) * (1.0f / (1.0f + expf(-row.logit(y))) - row.t[y]), mode);
}

void mean(const Stream& stream, int64_t n, const float* values, float* out, const char* name) {
  mean_kernel<<<1, threads, 0, native(stream)>>>(n, values, out);
  cuda_check(cudaGetLastError(), name);
}

}  // namespace

template <typename T>
void cross_entropy_forward(const Stream& stream, const CrossEntropyDims& dims, const T* logits, const Master<T>* targets,
                           const Master<T>* class_weights, Master<T>* lse, Master<T>* row_losses, Master<T>* loss) {
  forward_kernel<<<static_cast<unsigned>(dims.batch), threads, 0, native(stream)>>>(dims, logits, targets, class_weights, lse, row_losses);
  cuda_check(cudaGetLastError(), "cross_entropy_forward");
  mean(stream, dims.batch, row_losses, loss, "cross_entropy_forward");
}

template <typename T>
void cross_entropy_backward(const Stream& stream, const CrossEntropyDims& dims, const T* logits, const Master<T>* targets,
                            const Master<T>* class_weights, const Master<T>* lse, const Master<T>* dloss, T* dlogits, Accumulate mode) {
  backward_kernel<<<static_cast<unsigned>(dims.batch), threads, 0, native(stream)>>>(dims, logits, targets, class_weights, lse, dloss,
                                                                                     dlogits, mode);
  cuda_check(cudaGetLastError(), "cross_entropy_backward");
}

template <typename T>
void sigmoid_cross_entropy_forward(const Stream& stream, const CrossEntropyDims& dims, const T* logits, const Master<T>* targets,
                                   const Master<T>* class_weights, Master<T>* row_losses, Master<T>* loss) {
  sigmoid_forward_kernel<<<static_cast<unsigned>(dims.batch), threads, 0, native(stream)>>>(dims, logits, targets, class_weights,
                                                                                            row_losses);
  cuda_check(cudaGetLastError(), "sigmoid_cross_entropy_forward");
  mean(stream, dims.batch, row_losses, loss, "sigmoid_cross_entropy_forward");
}

template <typename T>
void sigmoid_cross_entropy_backward(const Stream& stream, const CrossEntropyDims& dims, const T* logits, const Master<T>* targets,
                                    const Master<T>* class_weights, const Master<T>* dloss, T* dlogits, Accumulate mode) {
  sigmoid_backward_kernel<<<static_cast<unsigned>(dims.batch), threads, 0, native(stream)>>>(dims, logits, targets, class_weights, dloss,
                                                                                             dlogits, mode);
  cuda_check(cudaGetLastError(), "sigmoid_cross_entropy_backward");
}

template void cross_entropy_forward(const Stream&, const CrossEntropyDims&, const float*, const float*, const float*, float*, float*,
                                    float*);
template void cross_entropy_forward(const Stream&, const CrossEntropyDims&, const bf16*, const float*, const float*, float*, float*,
                                    float*);
template void cross_entropy_backward(const Stream&, const CrossEntropyDims&, const float*, const float*, const float*, const float*,
                                     const float*, float*, Accumulate);
template void cross_entropy_backward(const Stream&, const CrossEntropyDims&, const bf16*, const float*, const float*, const float*,
                                     const float*, bf16*, Accumulate);
template void sigmoid_cross_entropy_forward(const Stream&, const CrossEntropyDims&, const float*, const float*, const float*, float*,
                                            float*);
template void sigmoid_cross_entropy_forward(const Stream&, const CrossEntropyDims&, const bf16*, const float*, const float*, float*,
                                            float*);
template void sigmoid_cross_entropy_backward(const Stream&, const CrossEntropyDims&, const float*, const float*, const float*, const float*,
                                             float*, Accumulate);
template void sigmoid_cross_entropy_backward(const Stream&, const CrossEntropyDims&, const bf16*, const float*, const float*, const float*,
                                             bf16*, Accumulate);

}  // namespace ermoe::cuda
