// Regression losses on the CPU. Batches are short: one thread.
#include "ops/kernels/regression_loss.h"

#include "ops/cpu/store.h"

#include <algorithm>
#include <cmath>

namespace ermoe::cpu {
namespace {

double cost(const RegressionDims& dims, double d) {
  const double size = std::fabs(d);
  switch (dims.kind) {
    case RegressionLoss::l1: return size;
    case RegressionLoss::l2: return d * d;
    case RegressionLoss::huber: return size <= dims.delta ? 0.5 * d * d : dims.delta * (size - 0.5 * dims.delta);
  }
  return 0;
}

double slope(const RegressionDims& dims, double d) {
  switch (dims.kind) {
    case RegressionLoss::l1: return std::isnan(d) ? d : static_cast<double>((d > 0) - (d < 0));
    case RegressionLoss::l2: return 2 * d;
    case RegressionLoss::huber: return std::clamp(d, -dims.delta, dims.delta);  // leaves a NaN as it is
  }
  return 0;
}

}  // namespace

template <typename T>
void regression_loss_forward(const RegressionDims& dims, const T* prediction, const Master<T>* target, Master<T>* loss) {
  double sum = 0;
  for (int64_t i = 0; i < dims.numel; ++i) sum += cost(dims, static_cast<double>(prediction[i]) - static_cast<double>(target[i]));
  *loss = static_cast<T>(sum / static_cast<double>(dims.numel));
}

template <typename T>
void regression_loss_backward(const RegressionDims& dims, const T* prediction, const Master<T>* target, const Master<T>* dloss,
                              T* dprediction, Accumulate mode) {
  const double scale = static_cast<double>(*dloss) / static_cast<double>(dims.numel);
  store(dims.numel, dprediction, mode, [=](int64_t i) {
    return static_cast<T>(scale * slope(dims, static_cast<double>(prediction[i]) - static_cast<double>(target[i])));
  });
}

template void regression_loss_forward(const RegressionDims&, const float*, const float*, float*);
template void regression_loss_forward(const RegressionDims&, const double*, const double*, double*);
template void regression_loss_backward(const RegressionDims&, const float*, const float*, const float*, float*, Accumulate);
template void regression_loss_backward(const RegressionDims&, const double*, const double*, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
