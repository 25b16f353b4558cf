// Addition on the CPU: blocks of columns within rows, so that one long row is shared by all threads too.
#include "ops/kernels/add.h"

#include <algorithm>

namespace ermoe::cpu {

template <typename T>
void add_forward(const AddDims& dims, const T* x, const T* b, T* y) {
  constexpr int64_t block = 4096;
  const int64_t blocks = (dims.cols + block - 1) / block;
#pragma omp parallel for collapse(2) schedule(static) if (dims.rows * dims.cols > 16384)
  for (int64_t r = 0; r < dims.rows; ++r) {
    for (int64_t k = 0; k < blocks; ++k) {
      const int64_t first = k * block, n = std::min(block, dims.cols - first), at = r * dims.cols + first;
#pragma omp simd
      for (int64_t c = 0; c < n; ++c) y[at + c] = x[at + c] + b[first + c];
    }
  }
}

template void add_forward(const AddDims&, const float*, const float*, float*);
template void add_forward(const AddDims&, const double*, const double*, double*);

}  // namespace ermoe::cpu
