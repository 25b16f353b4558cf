// Contract of the shares of energy. Read next: ops/cpu/energy_share.cpp.
#pragma once

#include "core/accumulate.h"
#include "core/bf16.h"
#include "core/device.h"

#include <cstdint>

namespace ermoe {

struct EnergyShareDims {
  int64_t rows = 0, cols = 0;
  double eps = 0;
};

namespace cpu {

/// total = Σ x² + eps of each row, y = x² / total.
template <typename T>
void energy_share_forward(const EnergyShareDims& dims, const T* x /* (rows, cols) */, T* y, Master<T>* total /* (rows) */);

/// dx (+)= 2 x (dy - Σ dy y) / total, with y made again from x.
template <typename T>
void energy_share_backward(const EnergyShareDims& dims, const T* x, const Master<T>* total, const T* dy, T* dx, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void energy_share_forward(const Stream& stream, const EnergyShareDims& dims, const T* x, T* y, Master<T>* total);
template <typename T>
void energy_share_backward(const Stream& stream, const EnergyShareDims& dims, const T* x, const Master<T>* total, const T* dy, T* dx,
                           Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
