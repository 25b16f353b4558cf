// The gradient of a slice on the GPU: one pass over flat memory. Contract: ops/kernels/slice_rows.h.
#include "ops/kernels/slice_rows.h"

#include "core/bf16.h"
#include "cuda/device/elementwise.cuh"

namespace ermoe::cuda {
namespace {

/// dy at its place and zero around it. Packs do not straddle the borders: the launcher sees to that.
template <typename T>
struct Place {
  int64_t begin, end;
  const T* dy;
  T* dx;
  template <int V>
  __device__ void run(int64_t i) const {
    Pack<T, V> out;
    if (i >= begin && i < end) {
      out = load<V>(dy + (i - begin));
    } else {
#pragma unroll
      for (int k = 0; k < V; ++k) out.v[k] = narrow<T>(0.0f);
    }
    store(dx + i, out);
  }
};

template <typename T>
struct Add {
  const T* dy;
  T* part;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto in = load<V>(dy + i);
    auto out = load<V>(part + i);
#pragma unroll
    for (int k = 0; k < V; ++k) out.v[k] = narrow<T>(widen(out.v[k]) + widen(in.v[k]));
    store(part + i, out);
  }
};

}  // namespace

template <typename T>
void slice_rows_backward(const Stream& stream, const SliceRowsDims& dims, const T* dy, T* dx, Accumulate mode) {
  T* const part = dx + dims.begin;
  if (mode == Accumulate::add) return elementwise<T>(stream, dims.count, Add<T>{dy, part}, "slice_rows_backward", dy, part);
  // Where the slice ends between packs, and so with elements behind it, all go one by one.
  const bool whole = dims.count % pack_width<T> == 0 || dims.begin + dims.count == dims.numel;
  elementwise<T>(stream, dims.numel, Place<T>{dims.begin, dims.begin + dims.count, dy, dx}, "slice_rows_backward", dy, dx, part,
                 whole ? dy : dy + 1);
}

template void slice_rows_backward(const Stream&, const SliceRowsDims&, const float*, float*, Accumulate);
template void slice_rows_backward(const Stream&, const SliceRowsDims&, const bf16*, bf16*, Accumulate);

}  // namespace ermoe::cuda
