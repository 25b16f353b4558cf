// LayerNorm on the GPU, bound by memory: x read and y written once forward; x and dy read, dx written once backward.
// A row stays in the registers of some lanes of a warp, or of a whole block where it is wide, so that the statistics cost no
// second reading. Weights' gradients gather in registers too, over the rows of one chunk, and are added up by a second launch.
// Contract: ops/kernels/layer_norm.h.
#include "ops/kernels/layer_norm.h"

#include "cuda/device/pack.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/device/sum_partials.cuh"

#include <algorithm>
#include <utility>

namespace ermoe::cuda {
namespace {

constexpr int threads = 256;

/// How a row lies in registers: `Packs` packs of `Width` elements in each of `Group` threads, a part of a warp or a block. Lanes
/// with several packs each keep more bytes on their way than a whole warp with one and a half.
template <int Width, int Packs, int Group>
struct Layout {
  static constexpr int width = Width, packs = Packs, group = Group, rows = threads / group;
  static_assert(Group <= warp_size || Group == threads);

  static __device__ int row() { return static_cast<int>(threadIdx.x) / group; }
  /// First column of pack k; beyond the row where there is none.
  static __device__ int column(int k) { return (k * group + static_cast<int>(threadIdx.x) % group) * Width; }
  static __device__ float sum(float value) {
    if constexpr (Group == threads) return block_sum<threads>(value);
    // Groups of one warp may be in different rounds of a loop: each syncs its own lanes.
    const unsigned lanes = Group == warp_size ? all_lanes : ((1u << Group % warp_size) - 1) << threadIdx.x % warp_size / Group * Group;
#pragma unroll
    for (int distance = Group / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(lanes, value, distance);
    return value;
  }
};

/// Has the compiler widen a pack of bf16 again where it is used next: it would keep twice the registers otherwise, and spill.
template <int V>
__device__ __forceinline__ void keep_narrow(Pack<bf16, V>& pack) {
  if constexpr (V == 8) {
    auto* const words = reinterpret_cast<uint32_t*>(pack.v);
    asm volatile("" : "+r"(words[0]), "+r"(words[1]), "+r"(words[2]), "+r"(words[3]));
  }
}
template <int V>
__device__ __forceinline__ void keep_narrow(Pack<float, V>&) {}

template <typename T>
struct ForwardArgs {
  int64_t rows;
  int cols;
  float eps;
  const T *x, *w, *b;
  T* y;
  float *mean, *rstd;
};

template <typename T, typename L>
__global__ void __launch_bounds__(threads) forward_kernel(ForwardArgs<T> a) {
  constexpr int V = L::width;
  Pack<T, V> w[L::packs], b[L::packs];
#pragma unroll
  for (int k = 0; k < L::packs; ++k)
    if (L::column(k) < a.cols) w[k] = load<V>(a.w + L::column(k)), b[k] = load<V>(a.b + L::column(k));
  const float inverse = 1.0f / static_cast<float>(a.cols);
  for (int64_t r = static_cast<int64_t>(blockIdx.x) * L::rows + L::row(); r < a.rows; r += static_cast<int64_t>(gridDim.x) * L::rows) {
    Pack<T, V> x[L::packs];
    float sum = 0, squares = 0;
#pragma unroll
    for (int k = 0; k < L::packs; ++k)
      if (L::column(k) < a.cols) x[k] = load<V>(a.x + r * a.cols + L::column(k));
#pragma unroll
    for (int k = 0; k < L::packs; ++k)
      if (L::column(k) < a.cols)
#pragma unroll
        for (int i = 0; i < V; ++i) sum += widen(x[k].v[i]);
    const float mean = L::sum(sum) * inverse;
#pragma unroll
    for (int k = 0; k < L::packs; ++k)
      if (L::column(k) < a.cols)
#pragma unroll
        for (int i = 0; i < V; ++i) squares += (widen(x[k].v[i]) - mean) * (widen(x[k].v[i]) - mean);
    const float rstd = 1.0f / sqrtf(L::sum(squares) * inverse + a.eps);
#pragma unroll
    for (int k = 0; k < L::packs; ++k) {
      if (L::column(k) >= a.cols) continue;
      keep_narrow(x[k]), keep_narrow(w[k]), keep_narrow(b[k]);
      Pack<T, V> y;
#pragma unroll
      for (int i = 0; i < V; ++i) y.v[i] = narrow<T>((widen(x[k].v[i]) - mean) * rstd * widen(w[k].v[i]) + widen(b[k].v[i]));
      store(a.y + r * a.cols + L::column(k), y);
    }
    if (L::column(0) == 0) a.mean[r] = mean, a.rstd[r] = rstd;
  }
}

template <typename T>
struct BackwardArgs {
  int64_t rows, chunk;  // rows in all, and of one chunk
  int cols;
  const T *x, *w;
  const float *mean, *rstd;
  const T* dy;
  T* dx;
  Accumulate mode;
  float *dw, *db;  // (chunks, cols); null where neither gradient is wanted
};

/// One row: dx, and what it adds to the sums for dw and db. `w` lies in shared memory.
template <typename T, typename L>
__device__ __forceinline__ void backward_row(const BackwardArgs<T>& a, int64_t r, const T* w, float (&dw)[L::packs][L::width],
                                             float (&db)[L::packs][L::width]) {
  constexpr int V = L::width;
  const bool add = a.mode == Accumulate::add && a.dx != nullptr;
  Pack<T, V> x[L::packs], dy[L::packs], old[L::packs];
#pragma unroll
  for (int k = 0; k < L::packs; ++k) {
    if (L::column(k) >= a.cols) continue;
    const int64_t at = r * a.cols + L::column(k);
    x[k] = load<V>(a.x + at), dy[k] = load<V>(a.dy + at);
    if (add) old[k] = load<V>(a.dx + at);
  }
  const float mean = a.mean[r], rstd = a.rstd[r];
  float sum = 0, dot = 0;
#pragma unroll
  for (int k = 0; k < L::packs; ++k) {
    if (L::column(k) >= a.cols) continue;
    const auto weight = load<V>(w + L::column(k));
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float upper = widen(dy[k].v[i]), centred = widen(x[k].v[i]) - mean, g = upper * widen(weight.v[i]);
      sum += g;
      dot += g * centred;
      dw[k][i] += upper * (centred * rstd);
      db[k][i] += upper;
    }
    keep_narrow(x[k]), keep_narrow(dy[k]);
  }
  if (a.dx == nullptr) return;
  const float inverse = 1.0f / static_cast<float>(a.cols), mean_g = L::sum(sum) * inverse, slope = L::sum(dot) * rstd * rstd * inverse;
#pragma unroll
  for (int k = 0; k < L::packs; ++k) {
    if (L::column(k) >= a.cols) continue;
    const auto weight = load<V>(w + L::column(k));
    Pack<T, V> dx;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float d = rstd * (widen(dy[k].v[i]) * widen(weight.v[i]) - mean_g - (widen(x[k].v[i]) - mean) * slope);
      dx.v[i] = narrow<T>(add ? widen(old[k].v[i]) + d : d);
    }
    store(a.dx + r * a.cols + L::column(k), dx);
  }
}

/// Adds up the groups' sums of a chunk, one after the other, and leaves them in its row of `out`.
template <typename L>
__device__ __forceinline__ void gather_groups(int cols, const float (&mine)[L::packs][L::width], float* shared, float* out) {
  for (int row = 0; row < L::rows; ++row) {
    if (L::row() == row) {
#pragma unroll
      for (int k = 0; k < L::packs; ++k)
        if (L::column(k) < cols)
#pragma unroll
          for (int i = 0; i < L::width; ++i) {
            const float before = row == 0 ? 0.0f : shared[L::column(k) + i];
            if (row == L::rows - 1)
              out[L::column(k) + i] = before + mine[k][i];
            else
              shared[L::column(k) + i] = before + mine[k][i];
          }
    }
    __syncthreads();
  }
}

/// A block takes one chunk of rows.
template <typename T, typename L, int Blocks>
__global__ void __launch_bounds__(threads, Blocks) backward_kernel(BackwardArgs<T> a) {
  constexpr int V = L::width, width = L::group * L::packs * V;
  __shared__ float shared[L::rows > 1 ? width : 1];
  __shared__ alignas(16) unsigned char weights[sizeof(T) * width];
  T* const w = reinterpret_cast<T*>(weights);
  for (int c = static_cast<int>(threadIdx.x); c < a.cols; c += threads) w[c] = a.w[c];
  __syncthreads();
  float dw[L::packs][V] = {}, db[L::packs][V] = {};
  const int64_t chunk = blockIdx.x, end = min(a.rows, (chunk + 1) * a.chunk);
  for (int64_t r = chunk * a.chunk + L::row(); r < end; r += L::rows) backward_row<T, L>(a, r, w, dw, db);
  if (a.dw == nullptr) return;
  gather_groups<L>(a.cols, dw, shared, a.dw + chunk * a.cols);
  gather_groups<L>(a.cols, db, shared, a.db + chunk * a.cols);
}

/// Calls `fn` with the smallest of the layouts that hold a row.
template <typename First, typename... Rest, typename Fn>
void with_layout(int64_t cols, Fn&& fn) {
  if constexpr (sizeof...(Rest) > 0)
    if (cols > First::group * First::packs * First::width) return with_layout<Rest...>(cols, std::forward<Fn>(fn));
  fn(First{});
}

template <typename T, typename Fn, typename... Pointers>
void choose_layout(int64_t cols, Fn&& fn, Pointers... pointers) {
  constexpr int V = pack_width<T>;
  if (cols % V != 0 || !all_aligned(pointers...)) return with_layout<Layout<1, 2, 32>, Layout<1, 4, 256>, Layout<1, 16, 256>>(cols, fn);
  if constexpr (V == 8)
    with_layout<Layout<8, 1, 32>, Layout<8, 3, 16>, Layout<8, 2, 32>, Layout<8, 3, 32>, Layout<8, 4, 32>, Layout<8, 1, 256>,
                Layout<8, 2, 256>>(cols, fn);
  else
    with_layout<Layout<4, 1, 32>, Layout<4, 3, 32>, Layout<4, 6, 32>, Layout<4, 2, 256>, Layout<4, 4, 256>>(cols, fn);
}

}  // namespace

template <typename T>
void layer_norm_forward(const Stream& stream, const LayerNormDims& dims, const T* x, const T* w, const T* b, T* y, Master<T>* mean,
                        Master<T>* rstd) {
  if (dims.rows == 0 || dims.cols == 0) return;
  const ForwardArgs<T> args{dims.rows, static_cast<int>(dims.cols), static_cast<float>(dims.eps), x, w, b, y, mean, rstd};
  const auto launch = [&](auto layout) {
    using L = decltype(layout);
    const int64_t blocks = (dims.rows + L::rows - 1) / L::rows, resident = int64_t{6} * state_of(stream).multiprocessors;
    forward_kernel<T, L><<<static_cast<unsigned>(std::min(blocks, resident)), threads, 0, native(stream)>>>(args);
    cuda_check(cudaGetLastError(), "layer_norm_forward");
  };
  choose_layout<T>(dims.cols, launch, x, w, b, y);
}

template <typename T>
void layer_norm_backward(const Stream& stream, const LayerNormDims& dims, const T* x, const T* w, const Master<T>* mean,
                         const Master<T>* rstd, const T* dy, Destination<T> dx, Destination<Master<T>> dw, Destination<Master<T>> db,
                         Master<T>* partials) {
  const int64_t count = dims.chunks().count();
  const bool weights = dw.data != nullptr || db.data != nullptr;
  if (dims.rows > 0 && dims.cols > 0) {
    const BackwardArgs<T> args{.rows = dims.rows,
                               .chunk = dims.chunks().size(),
                               .cols = static_cast<int>(dims.cols),
                               .x = x,
                               .w = w,
                               .mean = mean,
                               .rstd = rstd,
                               .dy = dy,
                               .dx = dx.data,
                               .mode = dx.mode,
                               .dw = weights ? partials : nullptr,
                               .db = weights ? partials + count * dims.cols : nullptr};
    const auto launch = [&](auto layout) {
      using L = decltype(layout);
      constexpr int blocks = L::packs * L::width <= 24 && sizeof(T) == 2 ? 2 : 1;  // an SM; more registers than that need spill
      backward_kernel<T, L, blocks><<<static_cast<unsigned>(count), threads, 0, native(stream)>>>(args);
      cuda_check(cudaGetLastError(), "layer_norm_backward");
    };
    choose_layout<T>(dims.cols, launch, x, w, dy, dx.data);
  }
  sum_partials(stream, PartialSums<2>{count, dims.cols, partials, {dw, db}}, "layer_norm_backward");
}

template void layer_norm_forward(const Stream&, const LayerNormDims&, const float*, const float*, const float*, float*, float*, float*);
template void layer_norm_forward(const Stream&, const LayerNormDims&, const bf16*, const bf16*, const bf16*, bf16*, float*, float*);
template void layer_norm_backward(const Stream&, const LayerNormDims&, const float*, const float*, const float*, const float*, const float*,
                                  Destination<float>, Destination<float>, Destination<float>, float*);
template void layer_norm_backward(const Stream&, const LayerNormDims&, const bf16*, const bf16*, const float*, const float*, const bf16*,
                                  Destination<bf16>, Destination<float>, Destination<float>, float*);

}  // namespace ermoe::cuda
