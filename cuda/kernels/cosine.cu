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

template <int V, int Lanes, typename T>
__device__ __forceinline__ Moments moments(const Vector<T>& a, const Vector<T>& b, int64_t width) {
  Moments m;
  for (int64_t c = first_column<V, Lanes>(); c < width; c += Lanes * V) {
    const auto x = a.template at<V>(c), y = b.template at<V>(c);
#pragma unroll
    for (int k = 0; k < V; ++k) m.ab += x.v[k] * y.v[k], m.aa += x.v[k] * x.v[k], m.bb += y.v[k] * y.v[k];
  }
  m.ab = group_sum<Lanes>(m.ab), m.aa = group_sum<Lanes>(m.aa), m.bb = group_sum<Lanes>(m.bb);
  return m;
}

template <typename T>
struct Forward {
  CosineDims dims;
  CosineOperand<T> a, b;
  float* s;
  template <int V, int Lanes>
  __device__ void run(int64_t pair, bool valid) const {
    const Moments m = moments<V, Lanes>(Vector<T>(a, dims, pair), Vector<T>(b, dims, pair), valid ? dims.width : 0);
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
    const Vector<T> left(a, dims, pair), right(b, dims, pair);
    const Moments m = moments<V, Lanes>(left, right, valid ? dims.width : 0);
    if (!valid) return;
    const bool zero = m.zero();
    const float of_other = ds[pair] / (sqrtf(m.aa) * sqrtf(m.bb)), along = -ds[pair] * m.cosine();
    for (int64_t c = first_column<V, Lanes>(); c < dims.width; c += Lanes * V) {
      const auto x = left.template at<V>(c), y = right.template at<V>(c);
      float out[V];
      if (da.data != nullptr) {
#pragma unroll
        for (int k = 0; k < V; ++k) out[k] = zero ? 0.0f : of_other * y.v[k] + along / m.aa * x.v[k];
        write(da.data + pair * dims.width + c, out, da.mode);
      }
      if (db.data != nullptr) {
#pragma unroll
        for (int k = 0; k < V; ++k) out[k] = zero ? 0.0f : of_other * x.v[k] + along / m.bb * y.v[k];
        write(db.data + pair * dims.width + c, out, db.mode);
      }
    }
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
