// Balance losses on the GPU. Forward: sums over chunks of rows in double, then one block that adds the chunks in order and forms the
// loss; backward: one pass. In float alone, and for baselines alone: clarity before speed. Contract: ops/kernels/balance_loss.h.
#include "ops/kernels/balance_loss.h"

#include "cuda/device/column_partials.cuh"
#include "cuda/device/ranked.cuh"

namespace ermoe::cuda {
namespace {

constexpr int threads = 256;
constexpr double cv_eps = 1e-10;

PartialDims partial_dims(const BalanceDims& dims) { return {dims.groups, dims.group_rows(), dims.experts}; }

/// Σ over the block of `value`, the same on every run; every thread gets it.
__device__ double block_sum(double value) {
  __shared__ double sums[threads];
  sums[threadIdx.x] = value;
  for (int step = threads / 2; step > 0; step /= 2) {
    __syncthreads();
    if (static_cast<int>(threadIdx.x) < step) sums[threadIdx.x] += sums[threadIdx.x + step];
  }
  __syncthreads();
  const double total = sums[0];
  __syncthreads();
  return total;
}

/// Σ over a group's chunks of quantity q of expert e.
template <int Q>
__device__ double add_up(const BalanceDims& dims, const double* partial, int64_t group, int q, int64_t e) {
  const int64_t chunks = chunks_of(dims.group_rows());
  double sum = 0;
#pragma unroll 4
  for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[((group * chunks + chunk) * Q + q) * dims.experts + e];
  return sum;
}

template <typename Work>
__global__ void __launch_bounds__(threads) elementwise_kernel(BalanceDims dims, Work work, float* to, Accumulate mode) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (i >= dims.rows * dims.experts) return;
  const float value = work(dims, i, i / dims.experts, i % dims.experts);
  to[i] = mode == Accumulate::add ? to[i] + value : value;
}

/// to[n, e] (+)= work(dims, index, n, e).
template <typename Work>
void for_each(const Stream& stream, const BalanceDims& dims, const Work& work, float* to, Accumulate mode, const char* name) {
  elementwise_kernel<<<blocks_for(dims.rows * dims.experts, threads), threads, 0, native(stream)>>>(dims, work, to, mode);
  cuda_check(cudaGetLastError(), name);
}

/// Of a row: its probabilities, and how many of its slots name the expert.
struct Shares {
  BalanceDims dims;
  const float* p;
  const int32_t* ids;
  const float* weights;
  __device__ void add(int64_t row, int64_t expert, double (&sums)[2]) const {
    sums[0] += weight_of(weights, row) * static_cast<double>(p[row * dims.experts + expert]);
    for (int64_t slot = row * dims.slots; slot < (row + 1) * dims.slots; ++slot) sums[1] += ids[slot] == expert ? 1 : 0;
  }
};

__global__ void __launch_bounds__(threads) switch_kernel(BalanceDims dims, const double* partial, float* shares, float* loss) {
  double own = 0;
  for (int64_t e = threadIdx.x; e < dims.experts; e += threads) {
    const double count = add_up<2>(dims, partial, 0, 1, e);
    shares[e] = static_cast<float>(count);
    own += count;
  }
  const double filled = fmax(block_sum(own), 1.0);
  own = 0;
  for (int64_t e = threadIdx.x; e < dims.experts; e += threads) {
    shares[e] = static_cast<float>(static_cast<double>(shares[e]) / filled);
    own += static_cast<double>(shares[e]) * add_up<2>(dims, partial, 0, 0, e);
  }
  const double sum = block_sum(own);
  if (threadIdx.x == 0) *loss = static_cast<float>(sum * static_cast<double>(dims.experts) / static_cast<double>(dims.rows));
}

struct SwitchSlope {
  const float *shares, *weights, *dloss;
  __device__ float operator()(const BalanceDims& dims, int64_t, int64_t row, int64_t expert) const {
    const auto weight = static_cast<float>(weight_of(weights, row));
    return *dloss * static_cast<float>(dims.experts) / static_cast<float>(dims.rows) * weight * shares[expert];
  }
};

/// A warp a row: its log-sum-exp. Each block leaves the weighted sum of its rows' squares.
__global__ void __launch_bounds__(threads)
    lse_kernel(BalanceDims dims, const float* logits, const float* weights, float* lse, double* partial) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (threads / 32) + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  double square = 0;
  if (row < dims.rows) {
    const float* const x = logits + row * dims.experts;
    float largest = -INFINITY, sum = 0;
    for (int64_t e = lane; e < dims.experts; e += 32) largest = fmaxf(largest, x[e]);
    for (int step = 16; step > 0; step /= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, step));
    for (int64_t e = lane; e < dims.experts; e += 32) sum += expf(x[e] - largest);
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    const float value = largest + logf(sum);
    if (lane == 0) {
      lse[row] = value;
      square = weight_of(weights, row) * static_cast<double>(value) * static_cast<double>(value);
    }
  }
  const double sum = block_sum(square);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(threads) mean_kernel(int64_t size, double count, const double* partial, float* loss) {
  double own = 0;
  for (int64_t i = threadIdx.x; i < size; i += threads) own += partial[i];
  const double sum = block_sum(own);
  if (threadIdx.x == 0) *loss = static_cast<float>(sum / count);
}

struct ZSlope {
  const float *logits, *weights, *lse, *dloss;
  __device__ float operator()(const BalanceDims& dims, int64_t i, int64_t row, int64_t) const {
    const auto weight = static_cast<float>(weight_of(weights, row));
    return 2 * *dloss / static_cast<float>(dims.rows) * weight * lse[row] * expf(logits[i] - lse[row]);
  }
};

struct Moments {
  double mean, variance;
};

/// Of a group's loads; every thread of the warp computes the same.
__device__ Moments warp_moments(int64_t experts, const double* loads) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  const auto mean_of = [&](auto value) {
    double sum = 0;
    for (int64_t e = lane; e < experts; e += 32) sum += value(loads[e]);
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    return sum / static_cast<double>(experts);
  };
  const double mean = mean_of([](double x) { return x; });
  return {mean, mean_of([=](double x) { return (x - mean) * (x - mean); })};
}

/// loads_ge = scale Σ over chunks; loss = the mean over groups of CV².
__global__ void __launch_bounds__(threads) loads_kernel(BalanceDims dims, double scale, const double* partial, double* loads, float* loss) {
  for (int64_t i = threadIdx.x; i < dims.groups * dims.experts; i += threads)
    loads[i] = scale * add_up<1>(dims, partial, i / dims.experts, 0, i % dims.experts);
  __syncthreads();
  double own = 0;
  for (int64_t group = threadIdx.x / 32; group < dims.groups; group += threads / 32) {
    const Moments m = warp_moments(dims.experts, loads + group * dims.experts);
    if (threadIdx.x % 32 == 0) own += m.variance / (m.mean * m.mean + cv_eps);
  }
  const double sum = block_sum(own);
  if (threadIdx.x == 0) *loss = static_cast<float>(sum / static_cast<double>(dims.groups));
}

struct Importance {
  int64_t experts;
  const float *p, *weights;
  __device__ void add(int64_t row, int64_t expert, double (&sums)[1]) const {
    sums[0] += presence_of(weights, row) * static_cast<double>(p[row * experts + expert]);
  }
};

/// (clean_e - t)/σ.
__device__ float margin(const BalanceDims& dims, float clean, float threshold) {
  return static_cast<float>((static_cast<double>(clean) - static_cast<double>(threshold)) / dims.sigma);
}

struct Load {
  BalanceDims dims;
  const float *clean, *weights, *thresholds;
  __device__ void add(int64_t row, int64_t expert, double (&sums)[1]) const {
    const float reached = normcdff(margin(dims, clean[row * dims.experts + expert], thresholds[row]));
    sums[0] += weight_of(weights, row) * static_cast<double>(reached);
  }
};

/// A warp a row: the K-th largest logit, a NaN where the row holds one.
__global__ void __launch_bounds__(threads) threshold_kernel(BalanceDims dims, const float* noisy, float* thresholds) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (threads / 32) + threadIdx.x / 32;
  if (row >= dims.rows) return;
  const float* const x = noisy + row * dims.experts;
  bool any_nan = false;
  for (int64_t e = threadIdx.x % 32; e < dims.experts; e += 32) any_nan |= isnan(x[e]);
  any_nan = __any_sync(0xffffffffu, any_nan) != 0;
  Ranked last = best_rank();
  for (int64_t k = 0; k < dims.slots && !any_nan; ++k) last = next_of_group<32>(dims.experts, last, [&](int32_t e) { return x[e]; });
  if (threadIdx.x % 32 == 0) thresholds[row] = any_nan ? NAN : last.value;
}

/// dx[n, e] (+)= factor dCV²/dload_e slope(index, n). A block takes a chunk of a group's rows.
template <typename Slope>
__global__ void __launch_bounds__(threads)
    cv_backward_kernel(BalanceDims dims, const double* loads, double factor, const float* dloss, Slope slope, float* dx, Accumulate mode) {
  const int64_t chunks = chunks_of(dims.group_rows()), group = blockIdx.x / chunks;
  const int64_t begin = group * dims.group_rows() + blockIdx.x % chunks * chunk_rows;
  const int64_t end = min(begin + chunk_rows, (group + 1) * dims.group_rows());
  const double* const load = loads + group * dims.experts;
  const Moments m = warp_moments(dims.experts, load);
  const double below = m.mean * m.mean + cv_eps, n = static_cast<double>(dims.experts), scale = static_cast<double>(*dloss) * factor;
  const double constant = 2 * m.variance * m.mean / (n * below * below);
  for (int64_t i = begin * dims.experts + threadIdx.x; i < end * dims.experts; i += threads) {
    const double cv_slope = 2 * (load[i % dims.experts] - m.mean) / (n * below) - constant;
    const auto value = static_cast<float>(scale * cv_slope * slope(dims, i));
    dx[i] = mode == Accumulate::add ? dx[i] + value : value;
  }
}

struct PresenceSlope {
  const float* weights;
  __device__ double operator()(const BalanceDims& dims, int64_t i) const { return presence_of(weights, i / dims.experts); }
};
/// φ(z)/φ(0) of the weight.
struct LoadSlope {
  const float *clean, *weights, *thresholds;
  __device__ double operator()(const BalanceDims& dims, int64_t i) const {
    const int64_t row = i / dims.experts;
    const float z = margin(dims, clean[i], thresholds[row]);
    return weight_of(weights, row) * static_cast<double>(expf(-0.5f * z * z));
  }
};

template <typename Slope>
void cv_backward(const Stream& stream, const BalanceDims& dims, const double* loads, double factor, const float* dloss, const Slope& slope,
                 float* dx, Accumulate mode, const char* name) {
  const auto blocks = static_cast<unsigned>(dims.groups * chunks_of(dims.group_rows()));
  cv_backward_kernel<<<blocks, threads, 0, native(stream)>>>(dims, loads, factor, dloss, slope, dx, mode);
  cuda_check(cudaGetLastError(), name);
}

void sum_loads(const Stream& stream, const BalanceDims& dims, double scale, const double* partial, double* loads, float* loss,
               const char* name) {
  loads_kernel<<<1, threads, 0, native(stream)>>>(dims, scale, partial, loads, loss);
  cuda_check(cudaGetLastError(), name);
}

unsigned warps_for(int64_t rows) { return blocks_for(rows, threads / 32); }

}  // namespace

// Rows are never none: the op refuses that.

int64_t balance_scratch(const BalanceDims& dims) {
  return std::max<int64_t>(2 * dims.groups * chunks_of(dims.group_rows()) * dims.experts, warps_for(dims.rows));
}

template <typename T>
void switch_balance_forward(const Stream& stream, const BalanceDims& dims, const T* p, const int32_t* ids, const T* weights, T* shares,
                            T* loss, double* scratch) {
  column_partials<2>(stream, partial_dims(dims), Shares{dims, p, ids, weights}, scratch, "switch_balance: sums");
  switch_kernel<<<1, threads, 0, native(stream)>>>(dims, scratch, shares, loss);
  cuda_check(cudaGetLastError(), "switch_balance_forward");
}

template <typename T>
void switch_balance_backward(const Stream& stream, const BalanceDims& dims, const T* shares, const T* weights, const T* dloss, T* dp,
                             Accumulate mode) {
  for_each(stream, dims, SwitchSlope{shares, weights, dloss}, dp, mode, "switch_balance_backward");
}

template <typename T>
void z_loss_forward(const Stream& stream, const BalanceDims& dims, const T* logits, const T* weights, T* lse, T* loss, double* scratch) {
  lse_kernel<<<warps_for(dims.rows), threads, 0, native(stream)>>>(dims, logits, weights, lse, scratch);
  cuda_check(cudaGetLastError(), "z_loss: rows");
  mean_kernel<<<1, threads, 0, native(stream)>>>(warps_for(dims.rows), static_cast<double>(dims.rows), scratch, loss);
  cuda_check(cudaGetLastError(), "z_loss_forward");
}

template <typename T>
void z_loss_backward(const Stream& stream, const BalanceDims& dims, const T* logits, const T* weights, const T* lse, const T* dloss,
                     T* dlogits, Accumulate mode) {
  for_each(stream, dims, ZSlope{logits, weights, lse, dloss}, dlogits, mode, "z_loss_backward");
}

template <typename T>
void importance_loss_forward(const Stream& stream, const BalanceDims& dims, const T* p, const T* weights, double* loads, T* loss,
                             double* scratch) {
  column_partials<1>(stream, partial_dims(dims), Importance{dims.experts, p, weights}, scratch, "importance_loss: sums");
  sum_loads(stream, dims, 1, scratch, loads, loss, "importance_loss_forward");
}

template <typename T>
void importance_loss_backward(const Stream& stream, const BalanceDims& dims, const double* loads, const T* weights, const T* dloss, T* dp,
                              Accumulate mode) {
  cv_backward(stream, dims, loads, 1 / static_cast<double>(dims.groups), dloss, PresenceSlope{weights}, dp, mode,
              "importance_loss_backward");
}

template <typename T>
void load_loss_forward(const Stream& stream, const BalanceDims& dims, const T* clean, const T* noisy, const T* weights, T* thresholds,
                       double* loads, T* loss, double* scratch) {
  threshold_kernel<<<warps_for(dims.rows), threads, 0, native(stream)>>>(dims, noisy, thresholds);
  cuda_check(cudaGetLastError(), "load_loss: thresholds");
  column_partials<1>(stream, partial_dims(dims), Load{dims, clean, weights, thresholds}, scratch, "load_loss: sums");
  sum_loads(stream, dims, 1 / static_cast<double>(dims.group_rows()), scratch, loads, loss, "load_loss_forward");
}

template <typename T>
void load_loss_backward(const Stream& stream, const BalanceDims& dims, const T* clean, const T* weights, const T* thresholds,
                        const double* loads, const T* dloss, T* dclean, Accumulate mode) {
  const double density_0 = 0.39894228040143268;  // φ(0) = 1/sqrt(2π)
  const double factor = density_0 / (dims.sigma * static_cast<double>(dims.rows));
  cv_backward(stream, dims, loads, factor, dloss, LoadSlope{clean, weights, thresholds}, dclean, mode, "load_loss_backward");
}

template void switch_balance_forward(const Stream&, const BalanceDims&, const float*, const int32_t*, const float*, float*, float*,
                                     double*);
template void switch_balance_backward(const Stream&, const BalanceDims&, const float*, const float*, const float*, float*, Accumulate);
template void z_loss_forward(const Stream&, const BalanceDims&, const float*, const float*, float*, float*, double*);
template void z_loss_backward(const Stream&, const BalanceDims&, const float*, const float*, const float*, const float*, float*,
                              Accumulate);
template void importance_loss_forward(const Stream&, const BalanceDims&, const float*, const float*, double*, float*, double*);
template void importance_loss_backward(const Stream&, const BalanceDims&, const double*, const float*, const float*, float*, Accumulate);
template void load_loss_forward(const Stream&, const BalanceDims&, const float*, const float*, const float*, float*, double*, float*,
                                double*);
template void load_loss_backward(const Stream&, const BalanceDims&, const float*, const float*, const float*, const double*, const float*,
                                 float*, Accumulate);

}  // namespace ermoe::cuda
