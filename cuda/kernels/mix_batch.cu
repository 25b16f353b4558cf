// Mixup and cutmix on the GPU: a thread takes a place in both partners, so no copy of the batch is needed. One pass over the
// batch, or over the box alone. Contract: ops/kernels/mix_batch.h.
#include "ops/kernels/mix_batch.h"

#include "cuda/device/elementwise.cuh"
#include "cuda/device/index.cuh"

namespace ermoe::cuda {
namespace {

template <typename T>
struct Mix {
  int64_t batch, width;
  float mine, theirs;
  T* x;
  template <int V>
  __device__ void run(int64_t i) const {
    if (V > 1 && width % V != 0) {  // a pack of one image may be two of its partner's
#pragma unroll
      for (int k = 0; k < V; ++k) run<1>(i + k);
      return;
    }
    const auto [b, column] = divide(i, width);
    T* const first = x + i;
    T* const second = x + (batch - 1 - b) * width + column;
    auto p = load<V>(first), q = load<V>(second);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float u = widen(p.v[k]), v = widen(q.v[k]);
      p.v[k] = narrow<T>(mine * u + theirs * v);
      q.v[k] = narrow<T>(mine * v + theirs * u);
    }
    store(first, p);
    store(second, q);
  }
};

template <typename T>
struct Swap {
  MixDims dims;
  Rectangle box;
  T* images;
  template <int V>
  __device__ void run(int64_t i) const {
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const auto [row, left] = divide(i + k, box.width);
      const auto [plane, top] = divide(row, box.height);
      const auto [b, c] = divide(plane, dims.channels);
      const int64_t at = (c * dims.height + box.top + top) * dims.width + box.left + left, size = dims.channels * dims.height * dims.width;
      T* const first = images + b * size + at;
      T* const second = images + (dims.batch - 1 - b) * size + at;
      const T kept = *first;
      *first = *second;
      *second = kept;
    }
  }
};

}  // namespace

template <typename T>
void mix_rows(const Stream& stream, int64_t batch, int64_t width, double own, T* x) {
  const Mix<T> work{batch, width, static_cast<float>(own), static_cast<float>(1 - own), x};
  elementwise<T>(stream, batch / 2 * width, work, "mix_rows", x);
}

template <typename T>
void swap_boxes(const Stream& stream, const MixDims& dims, const Rectangle& box, T* images) {
  const int64_t numel = dims.batch / 2 * dims.channels * box.height * box.width;
  elementwise<T>(stream, numel, Swap<T>{dims, box, images}, "swap_boxes", images);
}

template void mix_rows(const Stream&, int64_t, int64_t, double, float*);
template void mix_rows(const Stream&, int64_t, int64_t, double, bf16*);
template void swap_boxes(const Stream&, const MixDims&, const Rectangle&, float*);
template void swap_boxes(const Stream&, const MixDims&, const Rectangle&, bf16*);

}  // namespace ermoe::cuda
