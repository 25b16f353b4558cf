// Leading columns on the GPU: a transposing copy by squares through shared memory, so that both sides are read and written
// in whole lines. Once an optimizer step. Contract: ops/kernels/leading_basis.h.
#include "ops/kernels/leading_basis.h"

#include "cuda/device/pack.cuh"
#include "cuda/runtime/check.h"
#include "cuda/runtime/stream.h"

#include <algorithm>

namespace ermoe::cuda {
namespace {

constexpr int side = 32, threads_y = 8;

template <typename T>
__global__ void __launch_bounds__(side* threads_y) forward_kernel(LeadingBasisDims dims, const float* v, T* basis) {
  __shared__ float square[side][side + 1];
  const int64_t d0 = static_cast<int64_t>(blockIdx.x) * side, r0 = static_cast<int64_t>(blockIdx.y) * side;
  for (int64_t e = blockIdx.z; e < dims.experts; e += gridDim.z) {
    for (int i = threadIdx.y; i < side; i += threads_y) {
      const int64_t d = d0 + i, r = r0 + threadIdx.x;
      if (d < dims.width && r < dims.rank) square[i][threadIdx.x] = v[(e * dims.width + d) * dims.columns + r];
    }
    __syncthreads();
    for (int i = threadIdx.y; i < side; i += threads_y) {
      const int64_t d = d0 + threadIdx.x, r = r0 + i;
      if (d < dims.width && r < dims.rank) basis[(e * dims.rank + r) * dims.width + d] = narrow<T>(square[threadIdx.x][i]);
    }
    __syncthreads();
  }
}

/// Squares behind the first R columns of dv are zeroed, in the mode that asks for them.
template <typename T, Accumulate Mode>
__global__ void __launch_bounds__(side* threads_y) backward_kernel(LeadingBasisDims dims, const T* dbasis, float* dv) {
  __shared__ float square[side][side + 1];
  const int64_t d0 = static_cast<int64_t>(blockIdx.x) * side, r0 = static_cast<int64_t>(blockIdx.y) * side;
  for (int64_t e = blockIdx.z; e < dims.experts; e += gridDim.z) {
    for (int i = threadIdx.y; i < side; i += threads_y) {
      const int64_t d = d0 + threadIdx.x, r = r0 + i;
      square[i][threadIdx.x] = d < dims.width && r < dims.rank ? widen(dbasis[(e * dims.rank + r) * dims.width + d]) : 0.0f;
    }
    __syncthreads();
    for (int i = threadIdx.y; i < side; i += threads_y) {
      const int64_t d = d0 + i, r = r0 + threadIdx.x;
      if (d >= dims.width || r >= (Mode == Accumulate::add ? dims.rank : dims.columns)) continue;
      float* const to = dv + (e * dims.width + d) * dims.columns + r;
      *to = Mode == Accumulate::add ? *to + square[threadIdx.x][i] : square[threadIdx.x][i];
    }
    __syncthreads();
  }
}

dim3 grid_of(const LeadingBasisDims& dims, int64_t columns) {
  const auto squares = [](int64_t n) { return static_cast<unsigned>((n + side - 1) / side); };
  return {squares(dims.width), squares(columns), static_cast<unsigned>(std::min<int64_t>(dims.experts, 65535))};
}

}  // namespace

template <typename T>
void leading_basis_forward(const Stream& stream, const LeadingBasisDims& dims, const Master<T>* v, T* basis) {
  if (dims.experts * dims.rank * dims.width == 0) return;
  forward_kernel<<<grid_of(dims, dims.rank), dim3(side, threads_y), 0, native(stream)>>>(dims, v, basis);
  cuda_check(cudaGetLastError(), "leading_basis_forward");
}

template <typename T>
void leading_basis_backward(const Stream& stream, const LeadingBasisDims& dims, const T* dbasis, Master<T>* dv, Accumulate mode) {
  if (dims.experts * dims.columns * dims.width == 0) return;
  const dim3 threads(side, threads_y);
  if (mode == Accumulate::add)
    backward_kernel<T, Accumulate::add><<<grid_of(dims, dims.rank), threads, 0, native(stream)>>>(dims, dbasis, dv);
  else
    backward_kernel<T, Accumulate::overwrite><<<grid_of(dims, dims.columns), threads, 0, native(stream)>>>(dims, dbasis, dv);
  cuda_check(cudaGetLastError(), "leading_basis_backward");
}

template void leading_basis_forward(const Stream&, const LeadingBasisDims&, const float*, float*);
template void leading_basis_forward(const Stream&, const LeadingBasisDims&, const float*, bf16*);
template void leading_basis_backward(const Stream&, const LeadingBasisDims&, const float*, float*, Accumulate);
template void leading_basis_backward(const Stream&, const LeadingBasisDims&, const bf16*, float*, Accumulate);

}  // namespace ermoe::cuda
