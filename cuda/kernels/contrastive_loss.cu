// The losses over pairs on the GPU: products by cublasLt with sums in float, then a block a row, which reads its products from the L2.
// Contract: ops/kernels/contrastive_loss.h.
#include "ops/kernels/contrastive_loss.h"

#include "cuda/device/pack.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/gemm.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int threads = 256;

/// A block's row of products.
struct Row {
  const float* x;
  int64_t n, own;  // columns, and the one that belongs to the row
  float scale, bias;

  __device__ Row(const PairDims& dims, const PairTile<float>& tile)
      : x(tile.products + blockIdx.x * dims.cols),
        n(dims.cols),
        own(dims.first + blockIdx.x),
        scale(expf(*tile.log_scale)),
        bias(tile.bias == nullptr ? 0.0f : *tile.bias) {}
  __device__ float logit(int64_t j) const { return fmaf(scale, x[j], bias); }
};

__global__ void __launch_bounds__(threads) contrastive_rows_kernel(PairDims dims, PairTile<float> tile, float* shifts, float* losses) {
  const Row row(dims, tile);
  float mine = -INFINITY;  // NaNs are passed over here and found by the sum
  for (int64_t j = threadIdx.x; j < row.n; j += threads) mine = fmaxf(mine, row.x[j]);
  const float largest = block_max<threads>(mine);
  float sum = 0;
  for (int64_t j = threadIdx.x; j < row.n; j += threads) sum += expf(row.scale * (row.x[j] - largest));
  const float rest = logf(block_sum<threads>(sum));
  if (threadIdx.x != 0) return;
  float* const shift = shifts + pair_shift_numbers * blockIdx.x;
  shift[0] = largest;
  shift[1] = rest;
  losses[blockIdx.x] = static_cast<float>(dims.weight) * (rest - row.scale * (row.x[row.own] - largest));
}

template <typename T>
__global__ void __launch_bounds__(threads)
    contrastive_slopes_kernel(PairDims dims, PairTile<float> tile, PairShifts<float> shifts, const float* dloss, PairSlopes<T> out) {
  const Row row(dims, tile);
  const float *const own = shifts.own + pair_shift_numbers * blockIdx.x, *const all = shifts.all;
  const float largest = own[0], rest = own[1], matching = row.x[row.own];
  const float weight = static_cast<float>(dims.weight) * *dloss;
  T* const slopes = out.products + blockIdx.x * dims.cols;
  float sum = 0;
  for (int64_t j = threadIdx.x; j < row.n; j += threads) {
    const float* const other = all + pair_shift_numbers * j;
    const float of_row = expf(row.scale * (row.x[j] - largest) - rest), of_column = expf(row.scale * (row.x[j] - other[0]) - other[1]);
    slopes[j] = narrow<T>(weight * row.scale * (of_row + of_column - (j == row.own ? 2.0f : 0.0f)));
    sum += of_row * (row.x[j] - matching);  // the softmax adds up to 1: no difference of large sums
  }
  sum = block_sum<threads>(sum);
  if (threadIdx.x == 0 && out.log_scale != nullptr) out.log_scale[blockIdx.x] = weight * row.scale * sum;
}

__global__ void __launch_bounds__(threads) sigmoid_pair_rows_kernel(PairDims dims, PairTile<float> tile, float* losses) {
  const Row row(dims, tile);
  float sum = 0;
  for (int64_t j = threadIdx.x; j < row.n; j += threads) {
    const float u = j == row.own ? -row.logit(j) : row.logit(j);
    sum += (u > 0 ? u : 0.0f) + log1pf(expf(-fabsf(u)));
  }
  sum = block_sum<threads>(sum);
  if (threadIdx.x == 0) losses[blockIdx.x] = static_cast<float>(dims.weight) * sum;
}

template <typename T>
__global__ void __launch_bounds__(threads)
    sigmoid_pair_slopes_kernel(PairDims dims, PairTile<float> tile, const float* dloss, PairSlopes<T> out) {
  const Row row(dims, tile);
  const float weight = static_cast<float>(dims.weight) * *dloss;
  T* const slopes = out.products + blockIdx.x * dims.cols;
  float of_scale = 0, of_bias = 0;
  for (int64_t j = threadIdx.x; j < row.n; j += threads) {
    const float sign = j == row.own ? -1.0f : 1.0f;
    const float slope = weight * sign / (1.0f + expf(-sign * row.logit(j)));
    slopes[j] = narrow<T>(slope * row.scale);
    of_scale += slope * row.scale * row.x[j];
    of_bias += slope;
  }
  of_scale = block_sum<threads>(of_scale);
  of_bias = block_sum<threads>(of_bias);
  if (threadIdx.x != 0) return;
  if (out.log_scale != nullptr) out.log_scale[blockIdx.x] = of_scale;
  if (out.bias != nullptr) out.bias[blockIdx.x] = of_bias;
}

__global__ void __launch_bounds__(threads) sum_kernel(int64_t n, const float* values, float* sum, Accumulate mode) {
  double mine = 0;
  for (int64_t i = threadIdx.x; i < n; i += threads) mine += static_cast<double>(values[i]);
  const double total = block_sum<threads>(mine);
  if (threadIdx.x == 0) *sum = static_cast<float>(mode == Accumulate::add ? static_cast<double>(*sum) + total : total);
}

unsigned blocks_of(const PairDims& dims) { return static_cast<unsigned>(dims.rows); }

}  // namespace

template <typename T>
void pair_products(const Stream& stream, const PairDims& dims, const T* own, const T* all, Master<T>* products) {
  gemm(stream, packed_gemm(Trans::no, Trans::yes, dims.rows, dims.cols, dims.width), 1, own, all, 0, products);
}

template <typename T>
void pair_features_backward(const Stream& stream, const PairDims& dims, const T* slopes, const T* all, T* down, Accumulate mode) {
  gemm(stream, packed_gemm(Trans::no, Trans::no, dims.rows, dims.width, dims.cols), 1, slopes, all, mode == Accumulate::add ? 1 : 0, down);
}

template <typename T>
void contrastive_rows(const Stream& stream, const PairDims& dims, const PairTile<T>& tile, T* shifts, T* losses) {
  contrastive_rows_kernel<<<blocks_of(dims), threads, 0, native(stream)>>>(dims, tile, shifts, losses);
  cuda_check(cudaGetLastError(), "contrastive_rows");
}

template <typename T>
void contrastive_slopes(const Stream& stream, const PairDims& dims, const PairTile<Master<T>>& tile, const PairShifts<Master<T>>& shifts,
                        const Master<T>* dloss, const PairSlopes<T>& out) {
  contrastive_slopes_kernel<<<blocks_of(dims), threads, 0, native(stream)>>>(dims, tile, shifts, dloss, out);
  cuda_check(cudaGetLastError(), "contrastive_slopes");
}

template <typename T>
void sigmoid_pair_rows(const Stream& stream, const PairDims& dims, const PairTile<T>& tile, T* losses) {
  sigmoid_pair_rows_kernel<<<blocks_of(dims), threads, 0, native(stream)>>>(dims, tile, losses);
  cuda_check(cudaGetLastError(), "sigmoid_pair_rows");
}

template <typename T>
void sigmoid_pair_slopes(const Stream& stream, const PairDims& dims, const PairTile<Master<T>>& tile, const Master<T>* dloss,
                         const PairSlopes<T>& out) {
  sigmoid_pair_slopes_kernel<<<blocks_of(dims), threads, 0, native(stream)>>>(dims, tile, dloss, out);
  cuda_check(cudaGetLastError(), "sigmoid_pair_slopes");
}

template <typename T>
void pair_sum(const Stream& stream, int64_t n, const T* values, T* sum, Accumulate mode) {
  sum_kernel<<<1, threads, 0, native(stream)>>>(n, values, sum, mode);
  cuda_check(cudaGetLastError(), "pair_sum");
}

template void pair_products(const Stream&, const PairDims&, const float*, const float*, float*);
template void pair_products(const Stream&, const PairDims&, const bf16*, const bf16*, float*);
template void pair_features_backward(const Stream&, const PairDims&, const float*, const float*, float*, Accumulate);
template void pair_features_backward(const Stream&, const PairDims&, const bf16*, const bf16*, bf16*, Accumulate);
template void contrastive_rows(const Stream&, const PairDims&, const PairTile<float>&, float*, float*);
template void contrastive_slopes(const Stream&, const PairDims&, const PairTile<float>&, const PairShifts<float>&, const float*,
                                 const PairSlopes<float>&);
template void contrastive_slopes(const Stream&, const PairDims&, const PairTile<float>&, const PairShifts<float>&, const float*,
                                 const PairSlopes<bf16>&);
template void sigmoid_pair_rows(const Stream&, const PairDims&, const PairTile<float>&, float*);
template void sigmoid_pair_slopes(const Stream&, const PairDims&, const PairTile<float>&, const float*, const PairSlopes<float>&);
template void sigmoid_pair_slopes(const Stream&, const PairDims&, const PairTile<float>&, const float*, const PairSlopes<bf16>&);
template void pair_sum(const Stream&, int64_t, const float*, float*, Accumulate);

}  // namespace ermoe::cuda
