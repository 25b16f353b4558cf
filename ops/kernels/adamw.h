// Contract of the optimizer kernels. Read next: ops/cpu/adamw.cpp.
#pragma once

#include "core/device.h"

#include <cstdint>

namespace ermoe {

/// One Adam step's numbers, the same for every element of a parameter.
struct AdamDims {
  int64_t numel = 0;
  double lr = 0, beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double decay = 0;                         // weight decay, decoupled: p -= lr · decay · p
  double grad_scale = 1;                    // clipping: the gradient is multiplied by this
  double correction1 = 1, correction2 = 1;  // 1 - βᵗ
};

namespace cpu {

/// m, v (numel) are updated; p (numel) is stepped in place.
template <typename T>
void adamw_step(const AdamDims& dims, T* p, const T* g, T* m, T* v);

/// m, v are updated; direction (numel) = m̂ / (√v̂ + eps).
template <typename T>
void adam_direction(const AdamDims& dims, const T* g, T* m, T* v, T* direction);

/// Σ x², accumulated in double over fixed chunks: the same bits for any number of threads.
template <typename T>
double squared_norm(int64_t numel, const T* x);

/// average = decay · average + (1 - decay) · x.
template <typename T>
void moving_average(int64_t numel, double decay, const T* x, T* average);

}  // namespace cpu

namespace cuda {

template <typename T>
void adamw_step(const Stream& stream, const AdamDims& dims, T* p, const T* g, T* m, T* v);
template <typename T>
void adam_direction(const Stream& stream, const AdamDims& dims, const T* g, T* m, T* v, T* direction);
template <typename T>
double squared_norm(const Stream& stream, int64_t numel, const T* x);
template <typename T>
void moving_average(const Stream& stream, int64_t numel, double decay, const T* x, T* average);

}  // namespace cuda
}  // namespace ermoe
