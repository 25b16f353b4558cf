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
  static constexpr int tile_i = 128, narrow_j = 64, wide_j = 128;
  static constexpr int64_t fewest_wide_rows = 512;  // of q: below, what a tile costs beside its products makes wide ones slower

  int64_t batch = 0, m = 0, n = 0;                 // n >= 64, a multiple of 8
  int tile_j = narrow_j;                           // tiles are tile_i x tile_j
  const bf16 *hi = nullptr, *lo = nullptr;         // (batch, m, n)
  bf16* half = nullptr;                            // (batch, n, n): ½R without its diagonal
  float *diagonal = nullptr, *partials = nullptr;  // (batch, n), (batch, parts, slots, n)
  float* spare = nullptr;                          // scratch of `residual_wgmma`: the more, the better its balance
  int64_t spare_size = 0;

  ERMOE_HD int64_t row_tiles() const { return (n + tile_i - 1) / tile_i; }
  ERMOE_HD int64_t column_tiles() const { return (static_cast<int>(n) + tile_j - 1) / tile_j; }
  /// A tile leaves the sums of its rows in slot j, those of its columns in slot column_tiles + i.
  ERMOE_HD int64_t slots() const { return row_tiles() + column_tiles(); }
  ERMOE_HD int64_t part_size() const { return slots() * n; }

  /// Two numbers of one part as one.
  static ERMOE_HD float merge(int part, float a, float b) { return part == largest ? fmaxf(a, b) : a + b; }
  /// What an element off the diagonal adds to a part.
  static ERMOE_HD float weigh(int part, float value) { return part == squares ? value * value : fabsf(value); }

  /// Row i's `part`, from the tiles that it meets, in their order.
  ERMOE_HD float row_total(const float* partials_of_matrix, Part part, int64_t i) const {
    const float* const from = partials_of_matrix + part * part_size() + i;
    float total = 0;
    for (int64_t j = i / tile_i * (tile_i / tile_j); j < column_tiles(); ++j) total = merge(part, total, from[j * n]);
    for (int64_t t = 0; t <= i / tile_i; ++t) total = merge(part, total, from[(column_tiles() + t) * n]);
    return total;
  }
};

/// Fill half, diagonal and partials. `residual_mma`, by narrow tiles, runs on sm_80 and newer; `residual_wgmma`, by wide ones, on
/// Hopper. hi, lo, half and spare are aligned to 16 bytes.
void residual_mma(const Stream& stream, const Residual& work);
void residual_wgmma(const Stream& stream, const Residual& work);

}  // namespace ermoe::cuda
