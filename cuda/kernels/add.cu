// Addition on the GPU: one pass over flat memory; the row that is broadcast stays in the caches. Contract: ops/kernels/add.h.
#include "ops/kernels/add.h"

#include "cuda/device/elementwise.cuh"
#include "cuda/device/index.cuh"

namespace ermoe::cuda {
namespace {

template <typename T>
struct Add {
  int64_t cols;
  const T *x, *b;
  T* y;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto in = load<V>(x + i);
    const int64_t column = divide(i, cols).column;
    Pack<T, V> other, out;
    if (cols % V == 0) {
      other = load<V>(b + column);
    } else {  // a pack may go on in the next row
      int64_t c = column;
#pragma unroll
      for (int k = 0; k < V; ++k) {
        other.v[k] = b[c];
        if (++c == cols) c = 0;
      }
    }
#pragma unroll
    for (int k = 0; k < V; ++k) out.v[k] = narrow<T>(widen(in.v[k]) + widen(other.v[k]));
    store(y + i, out);
  }
};

}  // namespace

template <typename T>
void add_forward(const Stream& stream, const AddDims& dims, const T* x, const T* b, T* y) {
  elementwise<T>(stream, dims.rows * dims.cols, Add<T>{dims.cols, x, b, y}, "add_forward", x, b, y);
}

template void add_forward(const Stream&, const AddDims&, const float*, const float*, float*);
template void add_forward(const Stream&, const AddDims&, const bf16*, const bf16*, bf16*);

}  // namespace ermoe::cuda
