// The overlap of outputs on the GPU: a warp a token. Forward it reads the token's rows once a pair and leaves the token's loss, which one
// block adds up in a fixed order; backward it writes each row's gradient from all of the token's rows. With K = 2 the floor is that of
// combine: N K D elements read forward, twice as many moved backward. Contract: ops/kernels/output_overlap.h.
#include "ops/kernels/output_overlap.h"

#include "cuda/device/grid.cuh"
#include "cuda/device/pack.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

#include <type_traits>

namespace ermoe::cuda {
namespace {

constexpr int threads = 256, warps = threads / warp_size;

template <int V, typename T>
__device__ float product(int64_t width, const T* a, const T* b, int lane) {
  float sum = 0;
  for (int64_t column = lane * V; column < width; column += warp_size * V) {
    const auto x = load<V>(a + column), y = load<V>(b + column);
#pragma unroll
    for (int v = 0; v < V; ++v) sum = fmaf(widen(x.v[v]), widen(y.v[v]), sum);
  }
  return warp_sum(sum);
}

/// Lane 0 keeps the products, in a place that no other warp touches, and adds up the loss from what it wrote itself.
template <int V, typename T>
__global__ void __launch_bounds__(threads)
    forward_kernel(OutputOverlapDims dims, const T* y, const int32_t* slot_row, const float* weights, float* products, double* losses) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / warp_size;
  if (n >= dims.tokens) return;
  const int lane = static_cast<int>(threadIdx.x % warp_size);
  const int64_t K = dims.slots;
  const int32_t* const rows = slot_row + n * K;
  float* const g = products + n * K * K;
  const auto multiply = [&](int64_t j, int64_t k) {  // the same for all lanes
    if (rows[j] < 0 || rows[k] < 0) return 0.0f;
    return product<V>(dims.width, y + rows[j] * dims.width, y + rows[k] * dims.width, lane);
  };
  for (int64_t j = 0; j < K; ++j) {
    const float square = multiply(j, j);
    if (lane == 0) g[j * K + j] = square;
  }
  double loss = 0;
  for (int64_t j = 0; j < K; ++j)
    for (int64_t k = j + 1; k < K; ++k) {
      const float p = multiply(j, k);
      if (lane != 0) continue;
      g[j * K + k] = g[k * K + j] = p;
      loss += static_cast<double>(p * p * (overlap_inverse(g[j * K + j]) + overlap_inverse(g[k * K + k])));
    }
  if (lane == 0) losses[n] = weight_of(weights, n) * loss;
}

__global__ void __launch_bounds__(threads) mean_kernel(int64_t tokens, const double* losses, float* loss) {
  double own = 0;
  for (int64_t n = threadIdx.x; n < tokens; n += threads) own += losses[n];
  const double sum = block_sum<threads>(own);
  if (threadIdx.x == 0) *loss = static_cast<float>(sum / static_cast<double>(tokens));
}

template <typename T>
struct Backward {
  OutputOverlapDims dims;
  const T* y;
  const float* products;
  const int32_t *slot_row, *row_slot;
  const float *weights, *dloss;
  T* dy;
  Accumulate mode;

  /// The gradient of slot j of token n.
  template <int V>
  __device__ void run(int64_t n, int64_t j, int lane) const {
    const int64_t K = dims.slots, row = slot_row[n * K + j];
    if (row < 0) return;
    const float scale = *dloss / static_cast<float>(dims.tokens) * static_cast<float>(weight_of(weights, n));
    const float* const g = products + n * K * K;
    const float own = scale * overlap_slope(K, g, j, j);
    for (int64_t column = lane * V; column < dims.width; column += warp_size * V) {
      T* const to = dy + row * dims.width + column;
      float sum[V] = {};
      if (mode == Accumulate::add) add<V>(1, to, sum);
      for (int64_t k = 0; k < K; ++k) {
        const int64_t other = slot_row[n * K + k];
        if (other >= 0) add<V>(k == j ? own : scale * overlap_slope(K, g, j, k), y + other * dims.width + column, sum);
      }
      Pack<T, V> out;
#pragma unroll
      for (int v = 0; v < V; ++v) out.v[v] = narrow<T>(sum[v]);
      store(to, out);
    }
  }

  template <int V>
  __device__ static void add(float factor, const T* from, float (&sum)[V]) {
    const auto in = load<V>(from);
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v] = fmaf(factor, widen(in.v[v]), sum[v]);
  }

  /// Zeros in those of the rows n K … that nobody fills: there are as many of them as missing slots.
  __device__ void clear_unfilled(int64_t n, int lane) const {
    if (mode == Accumulate::add) return;
    for (int64_t row = n * dims.slots; row < (n + 1) * dims.slots; ++row) {
      if (row_slot[row] >= 0) continue;
      for (int64_t column = lane; column < dims.width; column += warp_size) dy[row * dims.width + column] = narrow<T>(0.0f);
    }
  }
};

template <int V, typename T>
__global__ void __launch_bounds__(threads) backward_kernel(Backward<T> work) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / warp_size;
  if (n >= work.dims.tokens) return;
  const int lane = static_cast<int>(threadIdx.x % warp_size);
  for (int64_t j = 0; j < work.dims.slots; ++j) work.template run<V>(n, j, lane);
  work.clear_unfilled(n, lane);
}

/// `launch` with packs of 16 bytes where rows allow them, else of one element.
template <typename T, typename Launch, typename... Pointers>
void in_packs(const OutputOverlapDims& dims, const Launch& launch, Pointers... pointers) {
  if (dims.width % pack_width<T> == 0 && all_aligned(pointers...)) return launch(std::integral_constant<int, pack_width<T>>{});
  launch(std::integral_constant<int, 1>{});
}

}  // namespace

// Tokens are never none: the op refuses that.

template <typename T>
void output_overlap_forward(const Stream& stream, const OutputOverlapDims& dims, const T* y, const int32_t* slot_row,
                            const Master<T>* weights, Master<T>* products, Master<T>* loss, double* scratch) {
  const auto launch = [&]<int V>(std::integral_constant<int, V>) {
    forward_kernel<V><<<blocks_for(dims.tokens, warps), threads, 0, native(stream)>>>(dims, y, slot_row, weights, products, scratch);
    cuda_check(cudaGetLastError(), "output_overlap: tokens");
  };
  in_packs<T>(dims, launch, y);
  mean_kernel<<<1, threads, 0, native(stream)>>>(dims.tokens, scratch, loss);
  cuda_check(cudaGetLastError(), "output_overlap_forward");
}

template <typename T>
void output_overlap_backward(const Stream& stream, const OutputOverlapDims& dims, const T* y, const Master<T>* products,
                             const int32_t* slot_row, const int32_t* row_slot, const Master<T>* weights, const Master<T>* dloss, T* dy,
                             Accumulate mode) {
  const Backward<T> work{dims, y, products, slot_row, row_slot, weights, dloss, dy, mode};
  const auto launch = [&]<int V>(std::integral_constant<int, V>) {
    backward_kernel<V><<<blocks_for(dims.tokens, warps), threads, 0, native(stream)>>>(work);
    cuda_check(cudaGetLastError(), "output_overlap_backward");
  };
  in_packs<T>(dims, launch, y, dy);
}

template void output_overlap_forward(const Stream&, const OutputOverlapDims&, const float*, const int32_t*, const float*, float*, float*,
                                     double*);
template void output_overlap_forward(const Stream&, const OutputOverlapDims&, const bf16*, const int32_t*, const float*, float*, float*,
                                     double*);
template void output_overlap_backward(const Stream&, const OutputOverlapDims&, const float*, const float*, const int32_t*, const int32_t*,
                                      const float*, const float*, float*, Accumulate);
template void output_overlap_backward(const Stream&, const OutputOverlapDims&, const bf16*, const float*, const int32_t*, const int32_t*,
                                      const float*, const float*, bf16*, Accumulate);

}  // namespace ermoe::cuda
