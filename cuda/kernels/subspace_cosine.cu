// The subspace score on the GPU, bound by memory: x, z and the gradients move once. A warp takes a token: all of it for the
// token's own norm, then small groups of its lanes for the experts' coordinates. Contract: ops/kernels/subspace_cosine.h.
#include "ops/kernels/subspace_cosine.h"

#include "cuda/device/row_group.cuh"

#include <cfloat>

namespace ermoe::cuda {
namespace {

/// False for a NaN: it has to show.
__device__ __forceinline__ bool is_zero(float squared) { return squared < FLT_MIN; }

/// x - mean of V neighbouring columns; mean may be null.
template <int V, typename T>
__device__ __forceinline__ void centred(const T* x, const float* mean, int64_t column, float (&out)[V]) {
  const auto in = load<V>(x + column);
  Pack<float, V> shift{};
  if (mean != nullptr) shift = load_floats<V>(mean + column);
#pragma unroll
  for (int k = 0; k < V; ++k) out[k] = widen(in.v[k]) - shift.v[k];
}

/// |x - mean|² by a whole warp.
template <int V, typename T>
__device__ __forceinline__ float squared_distance(const T* x, const float* mean, int64_t width) {
  float sum = 0;
  for (int64_t c = first_column<V, warp_size>(); c < width; c += warp_size * V) {
    float value[V];
    centred<V>(x, mean, c, value);
#pragma unroll
    for (int k = 0; k < V; ++k) sum += value[k] * value[k];
  }
  return warp_sum(sum);
}

/// z + shift of V neighbouring coordinates; shift may be null.
template <int V, typename T>
__device__ __forceinline__ void shifted(const T* z, const float* shift, int64_t column, float (&out)[V]) {
  const auto in = load<V>(z + column);
  Pack<float, V> add{};
  if (shift != nullptr) add = load_floats<V>(shift + column);
#pragma unroll
  for (int k = 0; k < V; ++k) out[k] = widen(in.v[k]) + add.v[k];
}

/// |z + shift|² by `Lanes` lanes; 0 where this group has no expert.
template <int V, int Lanes, typename T>
__device__ __forceinline__ float squared_norm(const T* z, const float* shift, int64_t rank, bool any) {
  float sum = 0;
  for (int64_t c = first_column<V, Lanes>(); any && c < rank; c += Lanes * V) {
    float value[V];
    shifted<V>(z, shift, c, value);
#pragma unroll
    for (int k = 0; k < V; ++k) sum += value[k] * value[k];
  }
  return group_sum<Lanes>(sum);
}

template <typename T>
struct Forward {
  SubspaceCosineDims dims;
  const T* x;
  const float* mean;
  const T* z;
  const float* shift;
  float* s;
  template <int V, int Lanes>
  __device__ void run(int64_t n) const {
    constexpr int groups = warp_size / Lanes;
    const int group = static_cast<int>(threadIdx.x % warp_size) / Lanes;
    const float xx = squared_distance<V>(x + n * dims.width, mean, dims.width);
    for (int64_t first = 0; first < dims.experts; first += groups) {
      const int64_t e = first + group, pair = n * dims.experts + e;
      const float* const own = shift == nullptr ? nullptr : shift + e * dims.rank;
      const float zz = squared_norm<V, Lanes>(z + pair * dims.rank, own, dims.rank, e < dims.experts);
      if (e < dims.experts && threadIdx.x % Lanes == 0) s[pair] = is_zero(xx) || is_zero(zz) ? 0.0f : sqrtf(zz) / sqrtf(xx);
    }
  }
};

template <typename T>
struct BackwardZ {
  SubspaceCosineDims dims;
  const T* x;
  const float* mean;
  const T* z;
  const float *shift, *ds;
  T* dz;
  Accumulate mode;
  template <int V, int Lanes>
  __device__ void run(int64_t n) const {
    constexpr int groups = warp_size / Lanes;
    const int group = static_cast<int>(threadIdx.x % warp_size) / Lanes;
    const float xx = squared_distance<V>(x + n * dims.width, mean, dims.width);
    for (int64_t first = 0; first < dims.experts; first += groups) {
      const int64_t e = first + group, pair = n * dims.experts + e;
      const T* const from = z + pair * dims.rank;
      const float* const own = shift == nullptr ? nullptr : shift + e * dims.rank;
      const float zz = squared_norm<V, Lanes>(from, own, dims.rank, e < dims.experts);
      const bool any = e < dims.experts;
      const float factor = !any || is_zero(xx) || is_zero(zz) ? 0.0f : ds[pair] / (sqrtf(zz) * sqrtf(xx));
      for (int64_t c = first_column<V, Lanes>(); any && c < dims.rank; c += Lanes * V) {
        float out[V];
        shifted<V>(from, own, c, out);
#pragma unroll
        for (int k = 0; k < V; ++k) out[k] *= factor;
        write(dz + pair * dims.rank + c, out, mode);
      }
    }
  }
};

template <typename T>
struct BackwardX {
  SubspaceCosineDims dims;
  const T* x;
  const float *mean, *s, *ds;
  T* dx;
  Accumulate mode;
  template <int V, int Lanes>
  __device__ void run(int64_t n) const {
    const float xx = squared_distance<V>(x + n * dims.width, mean, dims.width);
    float sum = 0;
    for (int64_t e = threadIdx.x % warp_size; e < dims.experts; e += warp_size) sum += ds[n * dims.experts + e] * s[n * dims.experts + e];
    sum = warp_sum(sum);
    const float factor = is_zero(xx) ? 0.0f : -sum / xx;
    for (int64_t c = first_column<V, warp_size>(); c < dims.width; c += warp_size * V) {
      float out[V];
      centred<V>(x + n * dims.width, mean, c, out);
#pragma unroll
      for (int k = 0; k < V; ++k) out[k] *= factor;
      write(dx + n * dims.width + c, out, mode);
    }
  }
};

template <int V, int Lanes, typename Work>
__global__ void __launch_bounds__(row_threads) token_kernel(int64_t tokens, Work work) {
  const int64_t n = (static_cast<int64_t>(blockIdx.x) * row_threads + threadIdx.x) / warp_size;
  if (n < tokens) work.template run<V, Lanes>(n);
}

/// A warp a token; `Lanes` of it an expert.
template <typename T, typename Work, typename... Pointers>
void by_tokens(const Stream& stream, const SubspaceCosineDims& dims, const Work& work, const char* name, Pointers... pointers) {
  if (dims.tokens == 0) return;
  const auto launch = [&]<int V>(std::integral_constant<int, V>) {
    with_lanes<1>(dims.rank / V, [&]<int Lanes>(std::integral_constant<int, Lanes>) {
      constexpr int in_block = row_threads / warp_size;
      token_kernel<V, Lanes>
          <<<static_cast<unsigned>((dims.tokens + in_block - 1) / in_block), row_threads, 0, native(stream)>>>(dims.tokens, work);
      cuda_check(cudaGetLastError(), name);
    });
  };
  constexpr int wide = pack_width<T>;
  if (dims.width % wide == 0 && dims.rank % wide == 0 && all_aligned(pointers...)) return launch(std::integral_constant<int, wide>{});
  launch(std::integral_constant<int, 1>{});
}

}  // namespace

template <typename T>
void subspace_cosine_forward(const Stream& stream, const SubspaceCosineDims& dims, const T* x, const Master<T>* mean, const T* z,
                             const Master<T>* shift, Master<T>* s) {
  by_tokens<T>(stream, dims, Forward<T>{dims, x, mean, z, shift, s}, "subspace_cosine_forward", x, mean, z, shift);
}

template <typename T>
void subspace_cosine_backward_z(const Stream& stream, const SubspaceCosineDims& dims, const T* x, const Master<T>* mean, const T* z,
                                const Master<T>* shift, const Master<T>* ds, T* dz, Accumulate mode) {
  by_tokens<T>(stream, dims, BackwardZ<T>{dims, x, mean, z, shift, ds, dz, mode}, "subspace_cosine_backward_z", x, mean, z, shift, dz);
}

template <typename T>
void subspace_cosine_backward_x(const Stream& stream, const SubspaceCosineDims& dims, const T* x, const Master<T>* mean, const Master<T>* s,
                                const Master<T>* ds, T* dx, Accumulate mode) {
  by_tokens<T>(stream, dims, BackwardX<T>{dims, x, mean, s, ds, dx, mode}, "subspace_cosine_backward_x", x, mean, dx);
}

template void subspace_cosine_forward(const Stream&, const SubspaceCosineDims&, const float*, const float*, const float*, const float*,
                                      float*);
template void subspace_cosine_forward(const Stream&, const SubspaceCosineDims&, const bf16*, const float*, const bf16*, const float*,
                                      float*);
template void subspace_cosine_backward_z(const Stream&, const SubspaceCosineDims&, const float*, const float*, const float*, const float*,
                                         const float*, float*, Accumulate);
template void subspace_cosine_backward_z(const Stream&, const SubspaceCosineDims&, const bf16*, const float*, const bf16*, const float*,
                                         const float*, bf16*, Accumulate);
template void subspace_cosine_backward_x(const Stream&, const SubspaceCosineDims&, const float*, const float*, const float*, const float*,
                                         float*, Accumulate);
template void subspace_cosine_backward_x(const Stream&, const SubspaceCosineDims&, const bf16*, const float*, const float*, const float*,
                                         bf16*, Accumulate);

}  // namespace ermoe::cuda
