// Cosines on the GPU, bound by memory: both vectors are read once, and again from the cache on the way back. A pair takes
// as many lanes as it has packs: 6 of 8 lanes at R 48 in bf16. Contract: ops/kernels/cosine.h.
#include "ops/kernels/cosine.h"

#include "cuda/device/index.cuh"
#include "cuda/device/row_group.cuh"

#include <cfloat>

namespace ermoe::cuda {
namespace {

struct Moments {
  float ab = 0, aa = 0, bb = 0;

  /// False for a NaN: it has to show.
  __device__ bool zero() const { return aa < FLT_MIN || bb < FLT_MIN; }
  __device__ float cosine() const { return ab / (sqrtf(aa) * sqrtf(bb)); }
};

/// A vector and the constant that is added to it; `shift` may be null.
template <typename T>
struct Vector {
  const T* v;
  const float* shift;

  __device__ Vector(const CosineOperand<T>& from, const CosineDims& dims, int64_t pair) : v(from.v + pair * dims.width), shift(from.shift) {
    if (shift != nullptr) shift += divide(pair, dims.shifts).column * dims.width;
  }
  template <int V>
  __device__ Pack<float, V> at(int64_t c) const {
    const auto in = load<V>(v + c);
    Pack<float, V> out{};
    if (shift != nullptr) out = load_floats<V>(shift + c);
#pragma unroll
    for (int k = 0; k < V; ++k) out.v[k] += widen(in.v[k]);
    return out;
  }
};

/// A pair of vectors among a group of lanes. The first pack of each stays in registers: vectors of up to `Lanes` packs are read once.
template <int V, int Lanes, typename T>
struct Pair {
  Vector<T> a, b;
  int64_t width;
  Pack<float, V> x{}, y{};

  __device__ Pair(const CosineDims& dims, const CosineOperand<T>& left, const CosineOperand<T>& right, int64_t pair, bool valid)
      : a(left, dims, pair), b(right, dims, pair), width(valid ? dims.width : 0) {
    if (const int64_t c = first_column<V, Lanes>(); c < width) x = a.template at<V>(c), y = b.template at<V>(c);
  }

  /// fn(column, pack of a, pack of b) for this lane's packs.
  template <typename Fn>
  __device__ __forceinline__ void each(Fn&& fn) const {
    int64_t c = first_column<V, Lanes>();
    if (c < width) fn(c, x, y);
    for (c += Lanes * V; c < width; c += Lanes * V) fn(c, a.template at<V>(c), b.template at<V>(c));
  }

  __device__ __forceinline__ Moments moments() const {
    Moments m;
    each([&](int64_t, const auto& left, const auto& right) {
#pragma unroll
      for (int k = 0; k < V; ++k) {
        m.ab += left.v[k] * right.v[k];
        m.aa += left.v[k] * left.v[k];
        m.bb += right.v[k] * right.v[k];
      }
    });
    m.ab = group_sum<Lanes>(m.ab), m.aa = group_sum<Lanes>(m.aa), m.bb = group_sum<Lanes>(m.bb);
    return m;
  }
};

template <typename T>
struct Forward {
  CosineDims dims;
  CosineOperand<T> a, b;
  float* s;
  template <int V, int Lanes>
  __device__ void run(int64_t pair, bool valid) const {
    const Moments m = Pair<V, Lanes, T>(dims, a, b, pair, valid).moments();
    if (valid && threadIdx.x % Lanes == 0) s[pair] = m.zero() ? 0.0f : m.cosine();
  }
};

/// Both gradients of a pair while its vectors are at hand.
template <typename T>
struct Backward {
  CosineDims dims;
  CosineOperand<T> a, b;
  const float* ds;
  Destination<T> da, db;
  template <int V, int Lanes>
  __device__ void run(int64_t pair, bool valid) const {
    const float d = valid ? ds[pair] : 0.0f;
    const Pair<V, Lanes, T> vectors(dims, a, b, pair, valid);
    const Moments m = vectors.moments();
    // da = d (b / (|a| |b|) - cos a / |a|²), and db alike; nothing where a vector is zero.
    const float own = d / (sqrtf(m.aa) * sqrtf(m.bb)), other = m.zero() ? 0.0f : own, along = m.zero() ? 0.0f : -own * m.ab;
    const float along_a = m.zero() ? 0.0f : along / m.aa, along_b = m.zero() ? 0.0f : along / m.bb;
    vectors.each([&](int64_t c, const auto& x, const auto& y) {
      float out[V];
      if (da.data != nullptr) {
#pragma unroll
        for (int k = 0; k < V; ++k) out[k] = other * y.v[k] + along_a * x.v[k];
        write(da.data + pair * dims.width + c, out, da.mode);
      }
      if (db.data != nullptr) {
#pragma unroll
        for (int k = 0; k < V; ++k) out[k] = other * x.v[k] + along_b * y.v[k];
        write(db.data + pair * dims.width + c, out, db.mode);
      }
    });
  }
};

}  // namespace

template <typename T>
void cosine_forward(const Stream& stream, const CosineDims& dims, const CosineOperand<T>& a, const CosineOperand<T>& b, Master<T>* s) {
  by_rows<T>(stream, dims.pairs, dims.width, Forward<T>{dims, a, b, s}, "cosine_forward", a.v, a.shift, b.v, b.shift);
}

template <typename T>
void cosine_backward(const Stream& stream, const CosineDims& dims, const CosineOperand<T>& a, const CosineOperand<T>& b,
                     const Master<T>* ds, Destination<T> da, Destination<T> db) {
  if (da.data == nullptr && db.data == nullptr) return;
  by_rows<T>(stream, dims.pairs, dims.width, Backward<T>{dims, a, b, ds, da, db}, "cosine_backward", a.v, a.shift, b.v, b.shift, da.data,
             db.data);
}

template void cosine_forward(const Stream&, const CosineDims&, const CosineOperand<float>&, const CosineOperand<float>&, float*);
template void cosine_forward(const Stream&, const CosineDims&, const CosineOperand<bf16>&, const CosineOperand<bf16>&, float*);
template void cosine_backward(const Stream&, const CosineDims&, const CosineOperand<float>&, const CosineOperand<float>&, const float*,
                              Destination<float>, Destination<float>);
template void cosine_backward(const Stream&, const CosineDims&, const CosineOperand<bf16>&, const CosineOperand<bf16>&, const float*,
                              Destination<bf16>, Destination<bf16>);

}  // namespace ermoe::cuda
