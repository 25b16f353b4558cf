// The logistic function on the CPU: one pass over flat memory.
#include "ops/kernels/sigmoid.h"

#include "ops/cpu/store.h"
#include "ops/cpu/vector_math.h"

namespace ermoe::cpu {

template <typename T>
void sigmoid_forward(const SigmoidDims& dims, const T* x, T* y) {
  store_parallel(dims.numel, y, Accumulate::overwrite, [=](int64_t i) { return T(1) / (T(1) + exp_of(-x[i])); });
}

template <typename T>
void sigmoid_backward(const SigmoidDims& dims, const T* y, const T* dy, T* dx, Accumulate mode) {
  store_parallel(dims.numel, dx, mode, [=](int64_t i) { return dy[i] * y[i] * (T(1) - y[i]); });
}

template void sigmoid_forward(const SigmoidDims&, const float*, float*);
template void sigmoid_forward(const SigmoidDims&, const double*, double*);
template void sigmoid_backward(const SigmoidDims&, const float*, const float*, float*, Accumulate);
template void sigmoid_backward(const SigmoidDims&, const double*, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
