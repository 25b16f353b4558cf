// Column sums on the GPU, bound by reading x once: the sums of chunks of rows, then those in their order.
// Contract: ops/kernels/column_sum.h.
#include "ops/kernels/column_sum.h"

#include "cuda/device/chunk_sums.cuh"
#include "cuda/device/sum_partials.cuh"

namespace ermoe::cuda {
namespace {

template <typename T>
struct Stored {
  const T* x;
  template <int V>
  __device__ Pack<T, V> fetch(int64_t at) const {
    return load<V>(x + at);
  }
  template <int V>
  __device__ Pack<T, V> finish(int64_t, const Pack<T, V>& in) const {
    return in;
  }
};

}  // namespace

template <typename T>
void column_sum(const Stream& stream, const ColumnSumDims& dims, const T* x, Master<T>* partials, Master<T>* y, Accumulate mode) {
  if (dims.cols == 0) return;
  if (dims.rows > 0) chunk_sums<T>(stream, dims, Stored<T>{x}, partials, "column_sum", x);
  sum_partials<1>(stream, {.chunks = dims.chunks().count(), .cols = dims.cols, .partials = partials, .sums = {{y, mode}}}, "column_sum");
}

template void column_sum(const Stream&, const ColumnSumDims&, const float*, float*, float*, Accumulate);
template void column_sum(const Stream&, const ColumnSumDims&, const bf16*, float*, float*, Accumulate);

}  // namespace ermoe::cuda
