// Centring rows on the GPU: one pass over flat memory, bound by its bandwidth. Contract: ops/kernels/basis_projection.h.
#include "ops/kernels/basis_projection.h"

#include "cuda/device/elementwise.cuh"
#include "cuda/device/index.cuh"

namespace ermoe::cuda {
namespace {

template <typename T>
struct Center {
  int64_t width;
  const T* x;
  const float* mean;
  T* y;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto in = load<V>(x + i);
    int64_t column = divide(i, width).column;
    Pack<T, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      out.v[k] = narrow<T>(widen(in.v[k]) - mean[column]);
      column = column + 1 == width ? 0 : column + 1;
    }
    store(y + i, out);
  }
};

}  // namespace

template <typename T>
void center_rows(const Stream& stream, const CenterRowsDims& dims, const T* x, const Master<T>* mean, T* y) {
  elementwise<T>(stream, dims.rows * dims.width, Center<T>{dims.width, x, mean, y}, "center_rows", x, y);
}

template void center_rows(const Stream&, const CenterRowsDims&, const float*, const float*, float*);
template void center_rows(const Stream&, const CenterRowsDims&, const bf16*, const float*, bf16*);

}  // namespace ermoe::cuda
