// The scores' variance on the GPU. Forward: sums and squares over chunks of rows in double, where float scores leave no cancellation
// worth speaking of, then one block that adds the chunks in order; backward: one pass. Contract: ops/kernels/score_variance.h.
#include "ops/kernels/score_variance.h"

#include "cuda/device/column_partials.cuh"
#include "cuda/device/reduce.cuh"

namespace ermoe::cuda {
namespace {

constexpr int threads = 256;

struct Powers {
  int64_t experts;
  const float *scores, *weights;
  __device__ void add(int64_t row, int64_t expert, double (&sums)[2]) const {
    const auto s = static_cast<double>(scores[row * experts + expert]);
    const double weight = weight_of(weights, row);
    sums[0] += weight * s;
    sums[1] += weight * s * s;
  }
};

__global__ void __launch_bounds__(threads)
    variance_kernel(ScoreVarianceDims dims, const double* partial /* (chunks, 2, E) */, double* means, float* loss) {
  const int64_t chunks = chunks_of(dims.rows);
  const auto n = static_cast<double>(dims.rows);
  double own = 0;
  for (int64_t e = threadIdx.x; e < dims.experts; e += threads) {
    double sum = 0, squares = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      sum += partial[2 * chunk * dims.experts + e];
      squares += partial[(2 * chunk + 1) * dims.experts + e];
    }
    const double mean = sum / n;
    means[e] = mean;
    own += squares / n - mean * mean;
  }
  const double total = block_sum<threads>(own);
  if (threadIdx.x == 0) *loss = static_cast<float>(-total);
}

__global__ void __launch_bounds__(threads) slope_kernel(ScoreVarianceDims dims, const float* scores, const float* weights,
                                                        const double* means, const float* dloss, float* dscores, Accumulate mode) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (i >= dims.rows * dims.experts) return;
  const double scale = -2 * static_cast<double>(*dloss) / static_cast<double>(dims.rows) * weight_of(weights, i / dims.experts);
  const auto slope = static_cast<float>(scale * (static_cast<double>(scores[i]) - means[i % dims.experts]));
  dscores[i] = mode == Accumulate::add ? dscores[i] + slope : slope;
}

}  // namespace

// Rows are never none: the op refuses that.

int64_t score_variance_scratch(const ScoreVarianceDims& dims) { return 2 * chunks_of(dims.rows) * dims.experts; }

template <typename T>
void score_variance_forward(const Stream& stream, const ScoreVarianceDims& dims, const T* scores, const T* weights, double* means, T* loss,
                            double* scratch) {
  column_partials<2>(stream, {1, dims.rows, dims.experts}, Powers{dims.experts, scores, weights}, scratch, "score_variance: sums");
  variance_kernel<<<1, threads, 0, native(stream)>>>(dims, scratch, means, loss);
  cuda_check(cudaGetLastError(), "score_variance_forward");
}

template <typename T>
void score_variance_backward(const Stream& stream, const ScoreVarianceDims& dims, const T* scores, const T* weights, const double* means,
                             const T* dloss, T* dscores, Accumulate mode) {
  slope_kernel<<<blocks_for(dims.rows * dims.experts, threads), threads, 0, native(stream)>>>(dims, scores, weights, means, dloss, dscores,
                                                                                              mode);
  cuda_check(cudaGetLastError(), "score_variance_backward");
}

template void score_variance_forward(const Stream&, const ScoreVarianceDims&, const float*, const float*, double*, float*, double*);
template void score_variance_backward(const Stream&, const ScoreVarianceDims&, const float*, const float*, const double*, const float*,
                                      float*, Accumulate);

}  // namespace ermoe::cuda
