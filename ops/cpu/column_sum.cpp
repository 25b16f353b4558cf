// Column sums on the CPU. Work is cut into chunks of rows times blocks of columns, so that few long rows (positions)
// parallelise as well as many short ones (biases).
#include "ops/kernels/column_sum.h"

namespace ermoe::cpu {
namespace {

constexpr int64_t column_block = 512;

/// p (cols) = Σ of `rows` rows; four rows at a time, so that p is read and written once for four.
template <typename T>
void sum_rows(int64_t rows, int64_t cols, int64_t stride, const T* x, T* p) {
#pragma omp simd
  for (int64_t c = 0; c < cols; ++c) p[c] = x[c];
  int64_t r = 1;
  for (; r + 4 <= rows; r += 4) {
    const T *a = x + r * stride, *b = a + stride, *d = b + stride, *e = d + stride;
#pragma omp simd
    for (int64_t c = 0; c < cols; ++c) p[c] += (a[c] + b[c]) + (d[c] + e[c]);
  }
  for (; r < rows; ++r) {
    const T* a = x + r * stride;
#pragma omp simd
    for (int64_t c = 0; c < cols; ++c) p[c] += a[c];
  }
}

}  // namespace

template <typename T>
void column_sum(const ColumnSumDims& dims, const T* x, Master<T>* partials, Master<T>* y, Accumulate mode) {
  const RowChunks chunks = dims.chunks();
  const int64_t blocks = (dims.cols + column_block - 1) / column_block, count = chunks.count();
#pragma omp parallel for collapse(2) schedule(static) if (dims.rows * dims.cols > 16384)
  for (int64_t chunk = 0; chunk < count; ++chunk) {
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t column = block * column_block, first = chunks.begin(chunk);
      sum_rows(chunks.end(chunk) - first, std::min(column_block, dims.cols - column), dims.stride, x + first * dims.stride + column,
               partials + chunk * dims.cols + column);
    }
  }
  sum_partials(count, dims.cols, partials, y, mode);
}

template <typename T>
void sum_partials(int64_t chunks, int64_t cols, const T* partials, T* y, Accumulate mode) {
  constexpr int64_t width = 64;
#pragma omp parallel for schedule(static) if (chunks * cols > 16384)
  for (int64_t begin = 0; begin < cols; begin += width) {
    const int64_t n = std::min(width, cols - begin);
    T sum[width] = {};
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const T* p = partials + chunk * cols + begin;
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) sum[c] += p[c];
    }
    T* out = y + begin;
    if (mode == Accumulate::add)
      for (int64_t c = 0; c < n; ++c) out[c] += sum[c];
    else
      std::copy(sum, sum + n, out);
  }
}

template void column_sum(const ColumnSumDims&, const float*, float*, float*, Accumulate);
template void column_sum(const ColumnSumDims&, const double*, double*, double*, Accumulate);
template void sum_partials(int64_t, int64_t, const float*, float*, Accumulate);
template void sum_partials(int64_t, int64_t, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
