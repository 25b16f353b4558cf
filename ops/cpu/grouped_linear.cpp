// Grouped GEMMs on the CPU: one BLAS call an expert.
#include "ops/kernels/grouped_linear.h"

#include "ops/cpu/batch.h"
#include "ops/cpu/blas.h"

#include <algorithm>

namespace ermoe::cpu {
namespace {

/// Calls fn(e, first row, number of rows) for every expert, empty ones too.
template <typename Fn>
void for_each_expert(const GroupedLinearDims& dims, const int32_t* offsets, Fn&& fn) {
  const int64_t multiplications = dims.rows * dims.in * dims.out / std::max<int64_t>(dims.experts, 1);
  for_each_matrix(dims.experts, multiplications, [&](int64_t e) { fn(e, int64_t{offsets[e]}, int64_t{offsets[e + 1]} - offsets[e]); });
}

/// Zeros in the rows that no expert fills.
template <typename T>
void clear_tail(const GroupedLinearDims& dims, const int32_t* offsets, int64_t width, T* rows) {
  std::fill(rows + offsets[dims.experts] * width, rows + dims.rows * width, T(0));
}

template <typename T>
T beta(Accumulate mode) {
  return mode == Accumulate::add ? T(1) : T(0);
}

}  // namespace

template <typename T>
void grouped_linear_forward(const GroupedLinearDims& dims, const T* x, const T* w, const T* b, const int32_t* offsets, T* y) {
  const int64_t in = dims.in, out = dims.out;
  for_each_expert(dims, offsets, [&](int64_t e, int64_t first, int64_t rows) {
    T* to = y + first * out;
    if (b != nullptr)
      for (int64_t i = 0; i < rows; ++i) std::copy_n(b + e * out, out, to + i * out);
    gemm(Trans::no, Trans::yes, rows, out, in, T(1), x + first * in, in, w + e * out * in, in, b != nullptr ? T(1) : T(0), to, out);
  });
  clear_tail(dims, offsets, out, y);
}

template <typename T>
void grouped_linear_backward_input(const GroupedLinearDims& dims, const T* w, const int32_t* offsets, const T* dy, T* dx, Accumulate mode) {
  const int64_t in = dims.in, out = dims.out;
  for_each_expert(dims, offsets, [&](int64_t e, int64_t first, int64_t rows) {
    gemm(Trans::no, Trans::no, rows, in, out, T(1), dy + first * out, out, w + e * out * in, in, beta<T>(mode), dx + first * in, in);
  });
  if (mode == Accumulate::overwrite) clear_tail(dims, offsets, in, dx);
}

template <typename T>
void grouped_linear_backward_weight(const GroupedLinearDims& dims, const T* x, const int32_t* offsets, const T* dy, T* dw,
                                    Accumulate mode) {
  const int64_t in = dims.in, out = dims.out;
  for_each_expert(dims, offsets, [&](int64_t e, int64_t first, int64_t rows) {
    T* to = dw + e * out * in;
    if (rows == 0 && mode == Accumulate::overwrite) std::fill_n(to, out * in, T(0));
    if (rows > 0) gemm(Trans::yes, Trans::no, out, in, rows, T(1), dy + first * out, out, x + first * in, in, beta<T>(mode), to, in);
  });
}

template <typename T>
void grouped_linear_backward_bias(const GroupedLinearDims& dims, const int32_t* offsets, const T* dy, T* db, Accumulate mode) {
  constexpr int64_t block = 64;  // columns a thread sums; rows are added in their order whatever the number of threads
  const int64_t blocks = (dims.out + block - 1) / block;
#pragma omp parallel for collapse(2) if (dims.rows * dims.out > 65536) schedule(dynamic)
  for (int64_t e = 0; e < dims.experts; ++e) {
    for (int64_t c = 0; c < blocks; ++c) {
      const int64_t first = c * block, width = std::min(block, dims.out - first);
      T sum[block] = {};
      for (int64_t i = offsets[e]; i < offsets[e + 1]; ++i)
        for (int64_t o = 0; o < width; ++o) sum[o] += dy[i * dims.out + first + o];
      T* to = db + e * dims.out + first;
      for (int64_t o = 0; o < width; ++o) to[o] = mode == Accumulate::add ? to[o] + sum[o] : sum[o];
    }
  }
}

template void grouped_linear_forward(const GroupedLinearDims&, const float*, const float*, const float*, const int32_t*, float*);
template void grouped_linear_forward(const GroupedLinearDims&, const double*, const double*, const double*, const int32_t*, double*);
template void grouped_linear_backward_input(const GroupedLinearDims&, const float*, const int32_t*, const float*, float*, Accumulate);
template void grouped_linear_backward_input(const GroupedLinearDims&, const double*, const int32_t*, const double*, double*, Accumulate);
template void grouped_linear_backward_weight(const GroupedLinearDims&, const float*, const int32_t*, const float*, float*, Accumulate);
template void grouped_linear_backward_weight(const GroupedLinearDims&, const double*, const int32_t*, const double*, double*, Accumulate);
template void grouped_linear_backward_bias(const GroupedLinearDims&, const int32_t*, const float*, float*, Accumulate);
template void grouped_linear_backward_bias(const GroupedLinearDims&, const int32_t*, const double*, double*, Accumulate);

}  // namespace ermoe::cpu
