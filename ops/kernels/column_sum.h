// Contract of the column sum, the gradient of everything that is broadcast over rows (biases, positions, class tokens).
// Two levels: rows fall into chunks whose size depends on the number of rows alone; each chunk is summed into a row of
// `partials`, then the partials are summed in order. So the bits do not depend on the number of threads.
#pragma once

#include "core/accumulate.h"
#include "core/bf16.h"
#include "core/device.h"

#include <algorithm>
#include <cstdint>

namespace ermoe {

/// How rows are cut for a two-level reduction: at most 256 chunks, and none below 16 rows but the last.
struct RowChunks {
  int64_t rows = 0;

  int64_t size() const { return std::max<int64_t>(16, (rows + 255) / 256); }
  int64_t count() const { return (rows + size() - 1) / size(); }
  int64_t begin(int64_t chunk) const { return chunk * size(); }
  int64_t end(int64_t chunk) const { return std::min(rows, (chunk + 1) * size()); }
};

struct ColumnSumDims {
  int64_t rows = 0, cols = 0;
  int64_t stride = 0;  // from one row to the next; cols where rows are contiguous

  RowChunks chunks() const { return {rows}; }
  int64_t partials() const { return chunks().count() * cols; }
};

namespace cpu {

/// y (cols) (+)= Σ_rows x. `partials` is scratch of dims.partials() elements.
template <typename T>
void column_sum(const ColumnSumDims& dims, const T* x /* (rows, stride) */, Master<T>* partials, Master<T>* y, Accumulate mode);

/// The second level alone: y (cols) (+)= Σ_chunks partials (chunks, cols). Zero where there are no chunks.
template <typename T>
void sum_partials(int64_t chunks, int64_t cols, const T* partials, T* y, Accumulate mode);

}  // namespace cpu

namespace cuda {

template <typename T>
void column_sum(const Stream& stream, const ColumnSumDims& dims, const T* x, Master<T>* partials, Master<T>* y, Accumulate mode);

}  // namespace cuda
}  // namespace ermoe
