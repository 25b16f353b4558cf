// Centring around a projection on the GPU, without a pass over the rows: the projected mean is a bias of the product, and in the
// basis' gradient it is a product of rank one. Both are small; their time is the launch's. In bf16 the bias is rounded like
// every result there, but a mean may be far longer than what is left without it: so the rounding's remainder is kept for whoever
// reads the coordinates. Contract: ops/kernels/basis_projection.h.
#include "ops/kernels/basis_projection.h"

#include "cuda/device/elementwise.cuh"
#include "cuda/device/index.cuh"
#include "cuda/device/row_group.cuh"

namespace ermoe::cuda {
namespace {

/// A warp a row of the basis.
template <typename T>
struct Bias {
  int64_t width;
  const T* basis;
  const float* mean;
  T* bias;
  float* shift;
  template <int V, int Lanes>
  __device__ void run(int64_t row, bool valid) const {
    float sum = 0;
    for (int64_t c = first_column<V, Lanes>(); valid && c < width; c += Lanes * V) {
      const auto in = load<V>(basis + row * width + c);
      const auto m = load_floats<V>(mean + c);
#pragma unroll
      for (int k = 0; k < V; ++k) sum -= widen(in.v[k]) * m.v[k];
    }
    sum = group_sum<Lanes>(sum);
    if (!valid || threadIdx.x % Lanes != 0) return;
    const T rounded = narrow<T>(sum);
    bias[row] = rounded;
    shift[row] = sum - widen(rounded);
  }
};

struct RankOne {
  int64_t width;
  const float *sums, *mean;
  float* to;
  template <int V>
  __device__ void run(int64_t i) const {
    auto [row, column] = divide(i, width);
    auto out = load<V>(to + i);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      out.v[k] -= sums[row] * mean[column];
      if (++column == width) column = 0, ++row;
    }
    store(to + i, out);
  }
};

}  // namespace

template <typename T>
void center_bias(const Stream& stream, const LinearDims& dims, const T* basis, const Master<T>* mean, T* bias, Master<T>* shift) {
  by_rows<T, warp_size>(stream, dims.out, dims.in, Bias<T>{dims.in, basis, mean, bias, shift}, "center_bias", basis, mean);
}

template <typename T>
void center_gradient(const Stream& stream, const LinearDims& dims, const Master<T>* sums, const Master<T>* mean, Master<T>* dbasis) {
  elementwise<float>(stream, dims.out * dims.in, RankOne{dims.in, sums, mean, dbasis}, "center_gradient", dbasis);
}

template void center_bias(const Stream&, const LinearDims&, const float*, const float*, float*, float*);
template void center_bias(const Stream&, const LinearDims&, const bf16*, const float*, bf16*, float*);
template void center_gradient<float>(const Stream&, const LinearDims&, const float*, const float*, float*);
template void center_gradient<bf16>(const Stream&, const LinearDims&, const float*, const float*, float*);

}  // namespace ermoe::cuda
