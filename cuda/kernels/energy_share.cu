// Shares of energy on the GPU, bound by memory: a row is read from there once, again from the cache. Sums in float.
// Contract: ops/kernels/energy_share.h.
#include "ops/kernels/energy_share.h"

#include "cuda/device/row_group.cuh"

namespace ermoe::cuda {
namespace {

template <typename T>
struct Forward {
  int64_t cols;
  float eps;
  const T* x;
  T* y;
  float* total;
  template <int V, int Lanes>
  __device__ void run(int64_t row, bool valid) const {
    const int64_t end = valid ? cols : 0, at = row * cols;
    float squares = 0;
    for (int64_t c = first_column<V, Lanes>(); c < end; c += Lanes * V) {
      const auto in = load<V>(x + at + c);
#pragma unroll
      for (int k = 0; k < V; ++k) squares += widen(in.v[k]) * widen(in.v[k]);
    }
    const float sum = group_sum<Lanes>(squares) + eps, inverse = 1 / sum;
    if (valid && threadIdx.x % Lanes == 0) total[row] = sum;
    for (int64_t c = first_column<V, Lanes>(); c < end; c += Lanes * V) {
      const auto in = load<V>(x + at + c);
      Pack<T, V> out;
#pragma unroll
      for (int k = 0; k < V; ++k) out.v[k] = narrow<T>(widen(in.v[k]) * widen(in.v[k]) * inverse);
      store(y + at + c, out);
    }
  }
};

template <typename T>
struct Backward {
  int64_t cols;
  const T* x;
  const float* total;
  const T* dy;
  T* dx;
  Accumulate mode;
  template <int V, int Lanes>
  __device__ void run(int64_t row, bool valid) const {
    const int64_t end = valid ? cols : 0, at = row * cols;
    float dot = 0;
    for (int64_t c = first_column<V, Lanes>(); c < end; c += Lanes * V) {
      const auto in = load<V>(x + at + c), d = load<V>(dy + at + c);
#pragma unroll
      for (int k = 0; k < V; ++k) dot += widen(d.v[k]) * widen(in.v[k]) * widen(in.v[k]);
    }
    dot = group_sum<Lanes>(dot);
    if (!valid) return;
    const float inverse = 1 / total[row], mean = dot * inverse;
    for (int64_t c = first_column<V, Lanes>(); c < end; c += Lanes * V) {
      const auto in = load<V>(x + at + c), d = load<V>(dy + at + c);
      float out[V];
#pragma unroll
      for (int k = 0; k < V; ++k) out[k] = 2 * widen(in.v[k]) * (widen(d.v[k]) - mean) * inverse;
      write(dx + at + c, out, mode);
    }
  }
};

}  // namespace

template <typename T>
void energy_share_forward(const Stream& stream, const EnergyShareDims& dims, const T* x, T* y, Master<T>* total) {
  const Forward<T> work{dims.cols, static_cast<float>(dims.eps), x, y, total};
  by_rows<T>(stream, dims.rows, dims.cols, work, "energy_share_forward", x, y);
}

template <typename T>
void energy_share_backward(const Stream& stream, const EnergyShareDims& dims, const T* x, const Master<T>* total, const T* dy, T* dx,
                           Accumulate mode) {
  const Backward<T> work{dims.cols, x, total, dy, dx, mode};
  by_rows<T>(stream, dims.rows, dims.cols, work, "energy_share_backward", x, dy, dx);
}

template void energy_share_forward(const Stream&, const EnergyShareDims&, const float*, float*, float*);
template void energy_share_forward(const Stream&, const EnergyShareDims&, const bf16*, bf16*, float*);
template void energy_share_backward(const Stream&, const EnergyShareDims&, const float*, const float*, const float*, float*, Accumulate);
template void energy_share_backward(const Stream&, const EnergyShareDims&, const bf16*, const float*, const bf16*, bf16*, Accumulate);

}  // namespace ermoe::cuda
