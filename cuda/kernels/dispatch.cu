// Dispatch on the GPU. Both directions gather rows, so nobody shares what he writes. The floor is bytes: N K D elements written
// and as many read, half of them from the cache where K = 2. Contract: ops/kernels/dispatch.h.
#include "ops/kernels/dispatch.h"

#include "cuda/device/slot_sum.cuh"

namespace ermoe::cuda {
namespace {

template <typename T>
struct Gather {
  int64_t width;
  const int32_t* row_token;
  const T* x;
  T* y;

  template <int V>
  __device__ void run(int64_t row, int64_t column) const {
    const int32_t token = row_token[row];
    Pack<T, V> out;
    if (token >= 0) {
      out = load<V>(x + token * width + column);
    } else {
#pragma unroll
      for (int v = 0; v < V; ++v) out.v[v] = narrow<T>(0.0f);
    }
    store(y + row * width + column, out);
  }
};

}  // namespace

template <typename T>
void dispatch_forward(const Stream& stream, const DispatchDims& dims, const T* x, const int32_t* row_token, T* y) {
  row_work<T>(stream, dims.rows, dims.width, Gather<T>{dims.width, row_token, x, y}, "dispatch_forward", x, y);
}

template <typename T>
void dispatch_backward(const Stream& stream, const DispatchDims& dims, const int32_t* slot_row, const T* dy, T* dx, Accumulate mode) {
  const float* const no_weights = nullptr;
  if (mode == Accumulate::add)
    sum_slots<Accumulate::add>(stream, dims.tokens, dims.slots, dims.width, slot_row, no_weights, dy, dx, "dispatch_backward");
  else
    sum_slots<Accumulate::overwrite>(stream, dims.tokens, dims.slots, dims.width, slot_row, no_weights, dy, dx, "dispatch_backward");
}

template void dispatch_forward(const Stream&, const DispatchDims&, const float*, const int32_t*, float*);
template void dispatch_forward(const Stream&, const DispatchDims&, const bf16*, const int32_t*, bf16*);
template void dispatch_backward(const Stream&, const DispatchDims&, const int32_t*, const float*, float*, Accumulate);
template void dispatch_backward(const Stream&, const DispatchDims&, const int32_t*, const bf16*, bf16*, Accumulate);

}  // namespace ermoe::cuda
