// Cosines on the CPU: one pass over both vectors forward; backward repeats it, which is cheaper than saving two norms.
#include "ops/kernels/cosine.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

namespace ermoe::cpu {
namespace {

template <typename T>
struct Moments {
  T ab = 0, aa = 0, bb = 0;

  Moments(const T* a, const T* b, int64_t width) {
    T sum_ab = 0, sum_aa = 0, sum_bb = 0;
#pragma omp simd reduction(+ : sum_ab, sum_aa, sum_bb)
    for (int64_t r = 0; r < width; ++r) {
      sum_ab += a[r] * b[r];
      sum_aa += a[r] * a[r];
      sum_bb += b[r] * b[r];
    }
    ab = sum_ab;
    aa = sum_aa;
    bb = sum_bb;
  }
  /// False for a NaN: it has to show.
  bool zero() const { return aa < std::numeric_limits<T>::min() || bb < std::numeric_limits<T>::min(); }
  Moments mirrored() const {
    Moments other = *this;
    std::swap(other.aa, other.bb);
    return other;
  }
  T cosine() const { return ab / (std::sqrt(aa) * std::sqrt(bb)); }
};

/// Vector i of an operand; in `room` where it has a shift.
template <typename T>
const T* vector_of(const CosineDims& dims, const CosineOperand<T>& from, int64_t i, std::vector<T>& room) {
  const T* v = from.v + i * dims.width;
  if (from.shift == nullptr) return v;
  const T* shift = from.shift + i % dims.shifts * dims.width;
  room.resize(static_cast<size_t>(dims.width));
  std::transform(v, v + dims.width, shift, room.data(), std::plus<T>());
  return room.data();
}

/// The gradient of the first of two vectors.
template <typename T>
void add_gradient(const Moments<T>& m, int64_t width, const T* own, const T* other, T ds, T* to, Accumulate mode) {
  if (m.zero()) {
    if (mode == Accumulate::overwrite) std::fill_n(to, width, T(0));
    return;
  }
  const T of_other = ds / (std::sqrt(m.aa) * std::sqrt(m.bb)), of_own = -ds * m.cosine() / m.aa;
  if (mode == Accumulate::overwrite)
    for (int64_t r = 0; r < width; ++r) to[r] = of_other * other[r] + of_own * own[r];
  else
    for (int64_t r = 0; r < width; ++r) to[r] += of_other * other[r] + of_own * own[r];
}

}  // namespace

template <typename T>
void cosine_forward(const CosineDims& dims, const CosineOperand<T>& a, const CosineOperand<T>& b, Master<T>* s) {
#pragma omp parallel if (dims.pairs * dims.width > 32768)
  {
    std::vector<T> room_a, room_b;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < dims.pairs; ++i) {
      const Moments<T> m(vector_of(dims, a, i, room_a), vector_of(dims, b, i, room_b), dims.width);
      s[i] = m.zero() ? T(0) : m.cosine();
    }
  }
}

template <typename T>
void cosine_backward(const CosineDims& dims, const CosineOperand<T>& a, const CosineOperand<T>& b, const Master<T>* ds, Destination<T> da,
                     Destination<T> db) {
#pragma omp parallel if (dims.pairs * dims.width > 32768)
  {
    std::vector<T> room_a, room_b;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < dims.pairs; ++i) {
      const T *va = vector_of(dims, a, i, room_a), *vb = vector_of(dims, b, i, room_b);
      const Moments<T> m(va, vb, dims.width);
      if (da.data != nullptr) add_gradient(m, dims.width, va, vb, ds[i], da.data + i * dims.width, da.mode);
      if (db.data != nullptr) add_gradient(m.mirrored(), dims.width, vb, va, ds[i], db.data + i * dims.width, db.mode);
    }
  }
}

template void cosine_forward(const CosineDims&, const CosineOperand<float>&, const CosineOperand<float>&, float*);
template void cosine_forward(const CosineDims&, const CosineOperand<double>&, const CosineOperand<double>&, double*);
template void cosine_backward(const CosineDims&, const CosineOperand<float>&, const CosineOperand<float>&, const float*, Destination<float>,
                              Destination<float>);
template void cosine_backward(const CosineDims&, const CosineOperand<double>&, const CosineOperand<double>&, const double*,
                              Destination<double>, Destination<double>);

}  // namespace ermoe::cpu
