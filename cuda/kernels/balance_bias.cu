// Counting loads and moving biases on the GPU: a thread an expert, each of which adds up all loads in their order. Contract:
// ops/kernels/balance_bias.h.
#include "ops/kernels/balance_bias.h"

#include "cuda/device/grid.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

namespace ermoe::cuda {
namespace {

constexpr int threads = 128;

__global__ void __launch_bounds__(threads) add_kernel(int64_t experts, const int32_t* counts, float* loads) {
  const int64_t e = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (e < experts) loads[e] += static_cast<float>(counts[e]);
}

__global__ void __launch_bounds__(threads) move_kernel(int64_t experts, const float* loads, float rate, float* bias) {
  const int64_t e = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  if (e >= experts) return;
  double total = 0;
  for (int64_t i = 0; i < experts; ++i) total += static_cast<double>(loads[i]);
  const double below = total - static_cast<double>(experts) * static_cast<double>(loads[e]);
  if (below != 0) bias[e] += below > 0 ? rate : -rate;
}

}  // namespace

template <typename T>
void add_counts(const Stream& stream, int64_t experts, const int32_t* counts, T* loads) {
  if (experts == 0) return;
  add_kernel<<<blocks_for(experts, threads), threads, 0, native(stream)>>>(experts, counts, loads);
  cuda_check(cudaGetLastError(), "add_counts");
}

template <typename T>
void move_biases(const Stream& stream, int64_t experts, const T* loads, double rate, T* bias) {
  if (experts == 0) return;
  move_kernel<<<blocks_for(experts, threads), threads, 0, native(stream)>>>(experts, loads, static_cast<float>(rate), bias);
  cuda_check(cudaGetLastError(), "move_biases");
}

template void add_counts(const Stream&, int64_t, const int32_t*, float*);
template void move_biases(const Stream&, int64_t, const float*, double, float*);

}  // namespace ermoe::cuda
