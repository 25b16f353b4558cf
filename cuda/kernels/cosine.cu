// Cosines on the GPU, bound by memory: both vectors are read once, and again from the cache on the way back. A pair takes
// as many lanes as it has packs: 6 of 8 lanes at R 48 in bf16. Contract: ops/kernels/cosine.h.
#include "ops/kernels/cosine.h"

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

template <int V, int Lanes, typename T>
__device__ __forceinline__ Moments moments(const T* a, const T* b, int64_t width) {
  Moments m;
  for (int64_t c = first_column<V, Lanes>(); c < width; c += Lanes * V) {
    const auto va = load<V>(a + c), vb = load<V>(b + c);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float x = widen(va.v[k]), y = widen(vb.v[k]);
      m.ab += x * y, m.aa += x * x, m.bb += y * y;
    }
  }
  m.ab = group_sum<Lanes>(m.ab), m.aa = group_sum<Lanes>(m.aa), m.bb = group_sum<Lanes>(m.bb);
  return m;
}

template <typename T>
struct Forward {
  int64_t width;
  const T *a, *b;
  float* s;
  template <int V, int Lanes>
  __device__ void run(int64_t pair, bool valid) const {
    const int64_t at = pair * width;
    const Moments m = moments<V, Lanes>(a + at, b + at, valid ? width : 0);
    if (valid && threadIdx.x % Lanes == 0) s[pair] = m.zero() ? 0.0f : m.cosine();
  }
};

template <typename T>
struct Backward {
  int64_t width;
  const T *a, *b;
  const float* ds;
  T* da;
  Accumulate mode;
  template <int V, int Lanes>
  __device__ void run(int64_t pair, bool valid) const {
    const int64_t at = pair * width;
    const Moments m = moments<V, Lanes>(a + at, b + at, valid ? width : 0);
    if (!valid) return;
    const bool zero = m.zero();
    const float of_b = ds[pair] / (sqrtf(m.aa) * sqrtf(m.bb)), of_a = -ds[pair] * m.cosine() / m.aa;
    for (int64_t c = first_column<V, Lanes>(); c < width; c += Lanes * V) {
      const auto va = load<V>(a + at + c), vb = load<V>(b + at + c);
      float out[V];
#pragma unroll
      for (int k = 0; k < V; ++k) out[k] = zero ? 0.0f : of_b * widen(vb.v[k]) + of_a * widen(va.v[k]);
      write(da + at + c, out, mode);
    }
  }
};

}  // namespace

template <typename T>
void cosine_forward(const Stream& stream, const CosineDims& dims, const T* a, const T* b, Master<T>* s) {
  by_rows<T>(stream, dims.pairs, dims.width, Forward<T>{dims.width, a, b, s}, "cosine_forward", a, b);
}

template <typename T>
void cosine_backward(const Stream& stream, const CosineDims& dims, const T* a, const T* b, const Master<T>* ds, T* da, Accumulate mode) {
  by_rows<T>(stream, dims.pairs, dims.width, Backward<T>{dims.width, a, b, ds, da, mode}, "cosine_backward", a, b, da);
}

template void cosine_forward(const Stream&, const CosineDims&, const float*, const float*, float*);
template void cosine_forward(const Stream&, const CosineDims&, const bf16*, const bf16*, float*);
template void cosine_backward(const Stream&, const CosineDims&, const float*, const float*, const float*, float*, Accumulate);
template void cosine_backward(const Stream&, const CosineDims&, const bf16*, const bf16*, const float*, bf16*, Accumulate);

}  // namespace ermoe::cuda
