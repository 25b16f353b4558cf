// One expert that has all rows. Contract: cuda/kernels/dense_wgmma.h.
#include "cuda/kernels/dense_wgmma.h"

#include "cuda/kernels/grouped_linear.cuh"

namespace ermoe::cuda {
namespace {

GroupedLinearDims one_expert(const LinearDims& dims) { return {.rows = dims.rows, .experts = 1, .in = dims.in, .out = dims.out}; }

/// A gradient of fewer elements has too few tiles to keep all multiprocessors busy.
constexpr int64_t fewest_weights = 384 * 1152;

bool parameters_pay(const Stream& stream, const LinearDims& dims) {
  return state_of(stream).major == 9 && dims.rows >= 4096 && dims.in * dims.out >= fewest_weights;
}

}  // namespace

template <typename T>
bool dense_wgmma_gelu_forward(const Stream& stream, const LinearDims& dims, const T* x, const T* w, const T* b, T* pre, T* y) {
  return multiply_on_hopper<Product::forward, Finish::gelu>(
      stream, GroupedProduct<T>{.dims = one_expert(dims), .a = x, .b = w, .bias = b, .c = pre, .second = y});
}

template <typename T>
bool dense_wgmma_gelu_backward(const Stream& stream, const LinearDims& dims, const T* w, const T* dy, T* pre, T* y) {
  return multiply_on_hopper<Product::input, Finish::gelu_slope>(
      stream, GroupedProduct<T>{.dims = one_expert(dims), .a = dy, .b = w, .c = pre, .second = y});
}

template <typename T>
bool dense_wgmma_parameters(const Stream& stream, const LinearDims& dims, const T* x, const T* dy, Destination<Master<T>> dw,
                            Destination<Master<T>> db, float* scratch) {
  if constexpr (sizeof(T) == sizeof(bf16)) {
    const GroupedProduct<T> p{.dims = one_expert(dims), .a = dy, .b = x, .c = dw.data, .mode = dw.mode, .bias_sums = db};
    if (!parameters_pay(stream, dims) || !suits_wgmma<Product::weight>(stream, p)) return false;
    grouped_wgmma_weight<float>(stream, p, scratch);
    return true;
  }
  return false;
}

int64_t dense_wgmma_scratch(const Stream& stream, const LinearDims& dims) {
  return parameters_pay(stream, dims) ? grouped_wgmma_weight_scratch(stream, one_expert(dims)) : 0;
}

#define ERMOE_DENSE_WGMMA(T)                                                                                         \
  template bool dense_wgmma_gelu_forward(const Stream&, const LinearDims&, const T*, const T*, const T*, T*, T*);    \
  template bool dense_wgmma_gelu_backward(const Stream&, const LinearDims&, const T*, const T*, T*, T*);             \
  template bool dense_wgmma_parameters(const Stream&, const LinearDims&, const T*, const T*, Destination<Master<T>>, \
                                       Destination<Master<T>>, float*);
ERMOE_DENSE_WGMMA(float)
ERMOE_DENSE_WGMMA(bf16)
#undef ERMOE_DENSE_WGMMA

}  // namespace ermoe::cuda
