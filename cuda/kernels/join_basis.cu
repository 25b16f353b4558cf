// Copies of column blocks on the GPU; once an optimizer step, so one element a thread is enough. Factors are float there
// whatever the model computes in. Contract: ops/kernels/join_basis.h.
#include "ops/kernels/join_basis.h"

#include "cuda/device/elementwise.cuh"
#include "cuda/device/index.cuh"

namespace ermoe::cuda {
namespace {

struct Join {
  JoinBasisDims dims;
  const float *basis, *rest, *free;
  float* v;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto [row, column] = divide(i, dims.r);
    if (row >= dims.E * dims.D) {
      v[i] = free[i - dims.E * dims.D * dims.r];
      return;
    }
    const auto [e, d] = divide(row, dims.D);
    v[i] = column < dims.R ? basis[(d * dims.all + dims.first + e) * dims.R + column] : rest[row * (dims.r - dims.R) + column - dims.R];
  }
};

struct Part {
  JoinBasisDims dims;
  const float* dv;
  Destination<float> basis, rest, free;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto [row, column] = divide(i, dims.r);
    if (row >= dims.E * dims.D) return put(free, i - dims.E * dims.D * dims.r, dv[i]);
    if (column >= dims.R) return put(rest, row * (dims.r - dims.R) + column - dims.R, dv[i]);
    const auto [e, d] = divide(row, dims.D);
    put(basis, (d * dims.all + dims.first + e) * dims.R + column, dv[i]);
  }
  __device__ static void put(const Destination<float>& to, int64_t at, float value) {
    if (to.data == nullptr) return;
    to.data[at] = to.mode == Accumulate::add ? to.data[at] + value : value;
  }
};

/// By single elements: no address is wide enough for more.
template <typename Work>
void each_element(const Stream& stream, const JoinBasisDims& d, const Work& work, const char* name) {
  const int64_t numel = (d.E + d.Ef) * d.D * d.r, blocks = (numel + elementwise_threads - 1) / elementwise_threads;
  if (numel == 0) return;
  elementwise_kernel<1><<<static_cast<unsigned>(blocks), elementwise_threads, 0, native(stream)>>>(numel, work);
  cuda_check(cudaGetLastError(), name);
}

}  // namespace

template <>
void join_basis_forward(const Stream& stream, const JoinBasisDims& dims, const float* basis, const float* rest, const float* free,
                        float* v) {
  each_element(stream, dims, Join{dims, basis, rest, free, v}, "join_basis_forward");
}

template <>
void join_basis_backward(const Stream& stream, const JoinBasisDims& dims, const float* dv, Destination<float> dbasis,
                         Destination<float> drest, Destination<float> dfree) {
  each_element(stream, dims, Part{dims, dv, dbasis, drest, dfree}, "join_basis_backward");
}

}  // namespace ermoe::cuda
