// Contract of the kernels of the regression losses. Read next: ops/cpu/regression_loss.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/bf16.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

/// With d = prediction - target: |d| · d² · d²/2 up to |d| = delta and delta (|d| - delta/2) beyond.
enum class RegressionLoss { l1, l2, huber };

struct RegressionDims {
  int64_t numel = 0;
  RegressionLoss kind = RegressionLoss::l1;
  double delta = 1;  // huber
};

namespace cpu {

/// loss = mean over the elements.
template <typename T>
void regression_loss_forward(const RegressionDims& dims, const T* prediction /* (numel) */, const Master<T>* target /* (numel) */,
                             Master<T>* loss /* () */);

/// dprediction (+)= dloss/numel times sign(d) · 2d · d clamped to ±delta. Of |d| at zero: 0.
template <typename T>
void regression_loss_backward(const RegressionDims& dims, const T* prediction, const Master<T>* target, const Master<T>* dloss /* () */,
                              T* dprediction, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void regression_loss_forward(const Stream& stream, const RegressionDims& dims, const T* prediction, const Master<T>* target,
                             Master<T>* loss);
template <typename T>
void regression_loss_backward(const Stream& stream, const RegressionDims& dims, const T* prediction, const Master<T>* target,
                              const Master<T>* dloss, T* dprediction, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
