// Contract of the kernels that make distributions over bins. Read next: ops/cpu/bin_targets.cpp.
#pragma once

#include "core/device.h"
#include "core/rng.h"

#include <cmath>
#include <cstdint>

namespace ermoe {

struct BinTargetsDims {
  int64_t batch = 0, bins = 0;
  double low = 0, width = 1, sigma = 1;
};

/// What of a normal distribution around `number` lies below `edge`.
ERMOE_HD inline double share_below(double edge, double number, double sigma) {
  return 0.5 * std::erfc((number - edge) / (sigma * 1.4142135623730951));
}

/// Element (b, k) of the targets, from number b.
ERMOE_HD inline double bin_target(const BinTargetsDims& dims, double number, int64_t k) {
  const double high = dims.low + dims.width * static_cast<double>(dims.bins), edge = dims.low + dims.width * static_cast<double>(k);
  const double y = number < dims.low ? dims.low : number > high ? high : number;  // a NaN stays one
  const double whole = share_below(high, y, dims.sigma) - share_below(dims.low, y, dims.sigma);
  return (share_below(edge + dims.width, y, dims.sigma) - share_below(edge, y, dims.sigma)) / whole;
}

namespace cpu {

template <typename T>
void bin_targets(const BinTargetsDims& dims, const T* numbers /* (B) */, T* targets /* (B, bins) */);

}  // namespace cpu

namespace cuda {

/// T: float.
template <typename T>
void bin_targets(const Stream& stream, const BinTargetsDims& dims, const T* numbers, T* targets);

}  // namespace cuda
}  // namespace ermoe
