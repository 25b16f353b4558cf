// Normalisation of queries and keys on the GPU, bound by memory. A row of qkv is 3H heads of Dh neighbouring elements; each
// is a small group of lanes' work, those of v being copied. The weights' gradients are sums over rows and heads: a block
// takes a chunk of rows, a second launch adds up the chunks. Contract: ops/kernels/qk_norm.h.
#include "ops/kernels/qk_norm.h"

#include "cuda/device/row_group.cuh"
#include "cuda/device/sum_partials.cuh"

namespace ermoe::cuda {
namespace {

/// Where a head lies: row r, and which of q's, k's and v's 3H heads.
struct Place {
  int64_t row, head;

  __device__ Place(int64_t index, int64_t heads) : row(index / (3 * heads)), head(index - row * 3 * heads) {}
  __device__ bool is_value(int64_t heads) const { return head >= 2 * heads; }
  /// In the statistics (N, 2H).
  __device__ int64_t at(int64_t heads) const { return row * 2 * heads + head; }
};

template <typename T>
struct Forward {
  int64_t heads, head_dim;
  float eps;
  const T* qkv;
  QkNormWeights<T> weights;
  T* y;
  float *mean, *rstd;
  template <int V, int Lanes>
  __device__ void run(int64_t index, bool valid) const {
    const Place place(index, heads);
    const int64_t end = valid ? head_dim : 0, at = index * head_dim;
    const float inverse = 1.0f / static_cast<float>(head_dim);
    float sum = 0, squares = 0;
    for (int64_t c = first_column<V, Lanes>(); c < end; c += Lanes * V) {
      const auto in = load<V>(qkv + at + c);
#pragma unroll
      for (int k = 0; k < V; ++k) sum += widen(in.v[k]);
    }
    const float m = group_sum<Lanes>(sum) * inverse;
    for (int64_t c = first_column<V, Lanes>(); c < end; c += Lanes * V) {
      const auto in = load<V>(qkv + at + c);
#pragma unroll
      for (int k = 0; k < V; ++k) squares += (widen(in.v[k]) - m) * (widen(in.v[k]) - m);
    }
    const float s = 1.0f / sqrtf(group_sum<Lanes>(squares) * inverse + eps);
    if (!valid) return;
    const bool copied = place.is_value(heads);
    const T *w = place.head < heads ? weights.q_w : weights.k_w, *b = place.head < heads ? weights.q_b : weights.k_b;
    if (!copied && threadIdx.x % Lanes == 0) mean[place.at(heads)] = m, rstd[place.at(heads)] = s;
    for (int64_t c = first_column<V, Lanes>(); c < end; c += Lanes * V) {
      auto out = load<V>(qkv + at + c);
      if (!copied) {
        const auto slope = load<V>(w + c), shift = load<V>(b + c);
#pragma unroll
        for (int k = 0; k < V; ++k) out.v[k] = narrow<T>((widen(out.v[k]) - m) * s * widen(slope.v[k]) + widen(shift.v[k]));
      }
      store(y + at + c, out);
    }
  }
};

template <typename T>
struct Backward {
  int64_t heads, head_dim;
  const T* qkv;
  QkNormWeights<T> weights;
  const float *mean, *rstd;
  const T* dy;
  T* dqkv;
  Accumulate mode;

  /// With g = dy w: rstd (g - mean(g) - x̂ mean(g x̂)).
  template <int V, int Lanes>
  __device__ void run(int64_t index, bool valid) const {
    const Place place(index, heads);
    const bool copied = place.is_value(heads);
    const int64_t end = valid ? head_dim : 0, at = index * head_dim;
    const T* const w = place.head < heads ? weights.q_w : weights.k_w;
    const float m = valid && !copied ? mean[place.at(heads)] : 0.0f, s = valid && !copied ? rstd[place.at(heads)] : 0.0f;
    float sum = 0, dot = 0;
    for (int64_t c = first_column<V, Lanes>(); !copied && c < end; c += Lanes * V) {
      const auto x = load<V>(qkv + at + c), d = load<V>(dy + at + c), slope = load<V>(w + c);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const float g = widen(d.v[k]) * widen(slope.v[k]);
        sum += g;
        dot += g * (widen(x.v[k]) - m);
      }
    }
    const float inverse = 1.0f / static_cast<float>(head_dim);
    const float mean_g = group_sum<Lanes>(sum) * inverse, tilt = group_sum<Lanes>(dot) * s * s * inverse;
    for (int64_t c = first_column<V, Lanes>(); c < end; c += Lanes * V) {
      const auto x = load<V>(qkv + at + c), d = load<V>(dy + at + c), slope = load<V>(w + c);
      float out[V];
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const float g = widen(d.v[k]) * widen(slope.v[k]);
        out[k] = copied ? widen(d.v[k]) : s * (g - mean_g - (widen(x.v[k]) - m) * tilt);
      }
      write(dqkv + at + c, out, mode);
    }
  }
};

constexpr int weight_threads = 256;

template <typename T>
struct WeightArgs {
  int64_t rows, heads, head_dim, chunk, chunks;
  const T *qkv, *dy;
  const float *mean, *rstd;
  float* partials;  // (4, chunks, Dh): q_w, q_b, k_w, k_b
};

/// Sums of one chunk (blockIdx.x) for the columns of one block of them (blockIdx.y).
template <typename T, int V, int Lanes>
__global__ void __launch_bounds__(weight_threads) weight_kernel(WeightArgs<T> a) {
  constexpr int groups = weight_threads / Lanes, columns = Lanes * V;
  __shared__ float shared[groups][columns + 1];
  const int group = static_cast<int>(threadIdx.x) / Lanes, lane_column = static_cast<int>(first_column<V, Lanes>());
  const int64_t column = static_cast<int64_t>(blockIdx.y) * columns + lane_column;
  const int64_t end = min(a.rows, (blockIdx.x + int64_t{1}) * a.chunk);
  float sums[4][V] = {};
  for (int64_t r = blockIdx.x * a.chunk + group; r < end && column < a.head_dim; r += groups) {
#pragma unroll
    for (int part = 0; part < 2; ++part) {
      for (int64_t h = part * a.heads; h < (part + 1) * a.heads; ++h) {
        const int64_t at = (r * 3 * a.heads + h) * a.head_dim + column;
        const auto x = load<V>(a.qkv + at), d = load<V>(a.dy + at);
        const float m = a.mean[r * 2 * a.heads + h], s = a.rstd[r * 2 * a.heads + h];
#pragma unroll
        for (int k = 0; k < V; ++k) {
          sums[2 * part][k] += widen(d.v[k]) * ((widen(x.v[k]) - m) * s);
          sums[2 * part + 1][k] += widen(d.v[k]);
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    __syncthreads();
#pragma unroll
    for (int k = 0; k < V; ++k) shared[group][lane_column + k] = sums[i][k];
    __syncthreads();
    const int64_t own = static_cast<int64_t>(blockIdx.y) * columns + threadIdx.x;
    if (threadIdx.x >= columns || own >= a.head_dim) continue;
    float total = 0;
    for (int g = 0; g < groups; ++g) total += shared[g][threadIdx.x];
    a.partials[(i * a.chunks + blockIdx.x) * a.head_dim + own] = total;
  }
}

template <typename T>
void weight_gradients(const Stream& stream, const QkNormDims& dims, const WeightArgs<T>& args) {
  const auto launch = [&]<int V>(std::integral_constant<int, V>) {
    with_lanes<1>(dims.head_dim / V, [&]<int Lanes>(std::integral_constant<int, Lanes>) {
      const dim3 grid(static_cast<unsigned>(args.chunks), static_cast<unsigned>((dims.head_dim + Lanes * V - 1) / (Lanes * V)));
      weight_kernel<T, V, Lanes><<<grid, weight_threads, 0, native(stream)>>>(args);
      cuda_check(cudaGetLastError(), "qk_norm_backward");
    });
  };
  if (dims.head_dim % pack_width<T> == 0 && all_aligned(args.qkv, args.dy)) return launch(std::integral_constant<int, pack_width<T>>{});
  launch(std::integral_constant<int, 1>{});
}

}  // namespace

template <typename T>
void qk_norm_forward(const Stream& stream, const QkNormDims& dims, const T* qkv, const QkNormWeights<T>& weights, T* y, Master<T>* mean,
                     Master<T>* rstd) {
  const Forward<T> work{dims.heads, dims.head_dim, static_cast<float>(dims.eps), qkv, weights, y, mean, rstd};
  by_rows<T>(stream, dims.rows * 3 * dims.heads, dims.head_dim, work, "qk_norm_forward", qkv, y, weights.q_w, weights.q_b, weights.k_w,
             weights.k_b);
}

template <typename T>
void qk_norm_backward(const Stream& stream, const QkNormDims& dims, const T* qkv, const QkNormWeights<T>& weights, const Master<T>* mean,
                      const Master<T>* rstd, const T* dy, Destination<T> dqkv, const QkNormGradients<Master<T>>& gradients,
                      Master<T>* partials) {
  if (dqkv.data != nullptr) {
    const Backward<T> work{dims.heads, dims.head_dim, qkv, weights, mean, rstd, dy, dqkv.data, dqkv.mode};
    by_rows<T>(stream, dims.rows * 3 * dims.heads, dims.head_dim, work, "qk_norm_backward", qkv, dy, dqkv.data, weights.q_w, weights.k_w);
  }
  const Destination<float>&q_w = gradients.q_w, &q_b = gradients.q_b, &k_w = gradients.k_w, &k_b = gradients.k_b;
  if (q_w.data == nullptr && q_b.data == nullptr && k_w.data == nullptr && k_b.data == nullptr) return;
  const int64_t chunks = dims.chunks().count();
  if (dims.rows > 0)
    weight_gradients<T>(stream, dims, {dims.rows, dims.heads, dims.head_dim, dims.chunks().size(), chunks, qkv, dy, mean, rstd, partials});
  sum_partials(stream, PartialSums<4>{chunks, dims.head_dim, partials, {q_w, q_b, k_w, k_b}}, "qk_norm_backward");
}

template void qk_norm_forward(const Stream&, const QkNormDims&, const float*, const QkNormWeights<float>&, float*, float*, float*);
template void qk_norm_forward(const Stream&, const QkNormDims&, const bf16*, const QkNormWeights<bf16>&, bf16*, float*, float*);
template void qk_norm_backward(const Stream&, const QkNormDims&, const float*, const QkNormWeights<float>&, const float*, const float*,
                               const float*, Destination<float>, const QkNormGradients<float>&, float*);
template void qk_norm_backward(const Stream&, const QkNormDims&, const bf16*, const QkNormWeights<bf16>&, const float*, const float*,
                               const bf16*, Destination<bf16>, const QkNormGradients<float>&, float*);

}  // namespace ermoe::cuda
