// The residual R = I - qᵀq of matrices that are orthonormal but for rounding, as exact as float: q = hi + lo + rest, hi and lo
// in bf16, and hi·hi + hi·lo + lo·hi is all of qᵀq that float holds; lo·lo counts on the diagonal alone, where it adds up.
// Tensor cores cut off what their float sums cannot hold, so sums are moved to registers of our own every 128 rows of q.
// The floor is arithmetic, 3·m·n² operations: three products of the tiles that reach the upper triangle.
// Read next: stiefel_residual.cu, stiefel_residual_wgmma.cu, and stiefel_fast.cu for what becomes of R.
#pragma once

#include "core/bf16.h"
#include "core/device.h"

#include <cmath>
#include <cstdint>

namespace ermoe::cuda {

struct Residual {
  enum Part { squares, sums, largest, parts };  // of a row's elements off the diagonal
  static constexpr int block = 64;              // columns that a row's parts are made of at a time
  static constexpr int wide_tile = 128;         // `residual_wgmma` has tiles of so many rows and columns

  int64_t batch = 0, m = 0, n = 0;                 // n >= block, a multiple of 8
  const bf16 *hi = nullptr, *lo = nullptr;         // (batch, m, n)
  bf16* half = nullptr;                            // (batch, n, n): ½R without its diagonal
  float *diagonal = nullptr, *partials = nullptr;  // (batch, n), (batch, parts, blocks, n): of half as it is rounded, times 2
  float* spare = nullptr;                          // scratch of `residual_wgmma`: the more, the better its balance
  int64_t spare_size = 0;

  ERMOE_HD int64_t blocks() const { return (n + block - 1) / block; }
  ERMOE_HD int64_t partial_at(int64_t matrix, int part, int64_t b, int64_t row) const {
    return ((matrix * parts + part) * blocks() + b) * n + row;
  }

  /// A row's `part`.
  ERMOE_HD float row_total(int64_t matrix, Part part, int64_t row) const {
    float total = 0;
    for (int64_t b = 0; b < blocks(); ++b) {
      const float more = partials[partial_at(matrix, part, b, row)];
      total = part == largest ? fmaxf(total, more) : total + more;
    }
    return total;
  }
};

/// Fill half, diagonal and partials. `residual_mma` runs on sm_80 and newer, `residual_wgmma` on Hopper. hi, lo, half and spare are
/// aligned to 16 bytes.
void residual_mma(const Stream& stream, const Residual& work);
void residual_wgmma(const Stream& stream, const Residual& work);

}  // namespace ermoe::cuda
