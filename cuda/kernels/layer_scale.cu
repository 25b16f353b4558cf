// LayerScale on the GPU, bound by memory: both gradients from one reading of dy. A warp walks down the rows of a chunk
// with a pack of columns a lane, so that gamma and its gradient stay in registers. Contract: ops/kernels/layer_scale.h.
#include "ops/kernels/layer_scale.h"

#include "cuda/device/elementwise.cuh"
#include "cuda/device/index.cuh"
#include "cuda/device/sum_partials.cuh"

namespace ermoe::cuda {
namespace {

constexpr int warps = 8;

template <typename T>
struct Forward {
  int64_t cols;
  const T *x, *gamma;
  T* y;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto in = load<V>(x + i);
    int64_t column = divide(i, cols).column;
    Pack<T, V> factor, out;
    if (cols % V == 0) {
      factor = load<V>(gamma + column);
    } else {
#pragma unroll
      for (int k = 0; k < V; ++k) {
        factor.v[k] = gamma[column];
        if (++column == cols) column = 0;
      }
    }
#pragma unroll
    for (int k = 0; k < V; ++k) out.v[k] = narrow<T>(widen(in.v[k]) * widen(factor.v[k]));
    store(y + i, out);
  }
};

template <typename T>
struct BackwardArgs {
  int64_t rows, cols, chunk;  // chunk: rows of each
  const T *x, *gamma, *dy;
  T* dx;
  Accumulate mode;
  float* partials;  // (chunks, cols); null where dgamma is not wanted
};

template <typename T, int V>
__global__ void __launch_bounds__(warps* warp_size) backward_kernel(BackwardArgs<T> a) {
  __shared__ float parts[warps][warp_size * V];
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  const int64_t column = (static_cast<int64_t>(blockIdx.y) * warp_size + lane) * V, chunk = blockIdx.x;
  const int64_t end = min(a.rows, (chunk + 1) * a.chunk);
  const bool inside = column < a.cols, add = a.mode == Accumulate::add && a.dx != nullptr;
  float sum[V] = {};
  Pack<T, V> gamma;
  if (inside) gamma = load<V>(a.gamma + column);
  for (int64_t r = chunk * a.chunk + warp; inside && r < end; r += warps) {
    const int64_t at = r * a.cols + column;
    const auto dy = load<V>(a.dy + at);
    Pack<T, V> x, dx;
    if (a.partials != nullptr) x = load<V>(a.x + at);
    if (add) dx = load<V>(a.dx + at);
    if (a.partials != nullptr)
#pragma unroll
      for (int k = 0; k < V; ++k) sum[k] += widen(dy.v[k]) * widen(x.v[k]);
    if (a.dx == nullptr) continue;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float d = widen(dy.v[k]) * widen(gamma.v[k]);
      dx.v[k] = narrow<T>(add ? widen(dx.v[k]) + d : d);
    }
    store(a.dx + at, dx);
  }
  if (a.partials == nullptr) return;
#pragma unroll
  for (int k = 0; k < V; ++k) parts[warp][k * warp_size + lane] = sum[k];
  __syncthreads();
  if (warp != 0 || !inside) return;
#pragma unroll
  for (int k = 0; k < V; ++k) {
    float total = 0;
#pragma unroll
    for (int w = 0; w < warps; ++w) total += parts[w][k * warp_size + lane];
    a.partials[chunk * a.cols + column + k] = total;
  }
}

}  // namespace

template <typename T>
void layer_scale_forward(const Stream& stream, const LayerScaleDims& dims, const T* x, const T* gamma, T* y) {
  elementwise<T>(stream, dims.rows * dims.cols, Forward<T>{dims.cols, x, gamma, y}, "layer_scale_forward", x, gamma, y);
}

template <typename T>
void layer_scale_backward(const Stream& stream, const LayerScaleDims& dims, const T* x, const T* gamma, const T* dy, Destination<T> dx,
                          Destination<Master<T>> dgamma, Master<T>* partials) {
  if (dims.rows > 0 && dims.cols > 0) {
    const BackwardArgs<T> args{.rows = dims.rows,
                               .cols = dims.cols,
                               .chunk = dims.chunks().size(),
                               .x = x,
                               .gamma = gamma,
                               .dy = dy,
                               .dx = dx.data,
                               .mode = dx.mode,
                               .partials = dgamma.data != nullptr ? partials : nullptr};
    const auto launch = [&]<int V>(std::integral_constant<int, V>) {
      constexpr int64_t block = int64_t{warp_size} * V;
      const dim3 grid(static_cast<unsigned>(dims.chunks().count()), static_cast<unsigned>((dims.cols + block - 1) / block));
      backward_kernel<T, V><<<grid, warps * warp_size, 0, native(stream)>>>(args);
      cuda_check(cudaGetLastError(), "layer_scale_backward");
    };
    if (dims.cols % pack_width<T> == 0 && all_aligned(x, gamma, dy, dx.data))
      launch(std::integral_constant<int, pack_width<T>>{});
    else
      launch(std::integral_constant<int, 1>{});
  }
  sum_partials(stream, PartialSums<1>{dims.chunks().count(), dims.cols, partials, {dgamma}}, "layer_scale_backward");
}

template void layer_scale_forward(const Stream&, const LayerScaleDims&, const float*, const float*, float*);
template void layer_scale_forward(const Stream&, const LayerScaleDims&, const bf16*, const bf16*, bf16*);
template void layer_scale_backward(const Stream&, const LayerScaleDims&, const float*, const float*, const float*, Destination<float>,
                                   Destination<float>, float*);
template void layer_scale_backward(const Stream&, const LayerScaleDims&, const bf16*, const bf16*, const bf16*, Destination<bf16>,
                                   Destination<float>, float*);

}  // namespace ermoe::cuda
