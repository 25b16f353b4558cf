// LayerNorm on the GPU, bound by memory: x read and y written once forward (and a branch read, its sum with x written, where a
// residual connection ends here); x and dy read, dx written once backward. A row stays in the registers of some lanes of a warp,
// or of a whole block where it is wide, so that the statistics cost no second reading. Weights' gradients gather in registers too,
// over all rows of a block, and are added up by a second launch; that leaves few warps, so backward fetches a row ahead.
// Contract: ops/kernels/layer_norm.h.
#include "ops/kernels/layer_norm.h"

#include "cuda/device/mma.cuh"
#include "cuda/device/pack.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/device/sum_partials.cuh"

#include <algorithm>
#include <utility>

namespace ermoe::cuda {
namespace {

/// How a row lies in registers: `Packs` packs of `Width` elements in each of `Group` threads, a part of a warp or a block. Lanes
/// with several packs each keep more bytes on their way than a whole warp with one and a half.
template <int Width, int Packs, int Group, int Threads = 256>
struct Layout {
  static constexpr int width = Width, packs = Packs, group = Group, threads = Threads, rows = threads / group;
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
  int64_t rows = 0;
  int cols = 0;
  float eps = 0;
  const T *x, *w, *b;
  const T* branch = nullptr;  // where rows are sums
  T* sum = nullptr;
  T* y;
  float *mean, *rstd;
};

/// What a row is: x, or x + branch. Chosen at compile time, since a branch takes registers.
enum class RowOf { x, sum };

/// x + branch as it is rounded, kept in x and stored.
template <typename L, typename T>
__device__ __forceinline__ void add_branch(const ForwardArgs<T>& a, int64_t row, Pack<T, L::width> (&x)[L::packs]) {
  constexpr int V = L::width;
  Pack<T, V> branch[L::packs];
#pragma unroll
  for (int k = 0; k < L::packs; ++k)
    if (L::column(k) < a.cols) branch[k] = load<V>(a.branch + row + L::column(k));
#pragma unroll
  for (int k = 0; k < L::packs; ++k) {
    if (L::column(k) >= a.cols) continue;
#pragma unroll
    for (int i = 0; i < V; ++i) x[k].v[i] = narrow<T>(widen(x[k].v[i]) + widen(branch[k].v[i]));
    store(a.sum + row + L::column(k), x[k]);
  }
}

template <typename T, typename L, RowOf Row>
__global__ void __launch_bounds__(L::threads) forward_kernel(ForwardArgs<T> a) {
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
    if constexpr (Row == RowOf::sum) add_branch<L>(a, r * a.cols, x);
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
  int64_t rows = 0;
  int cols = 0;
  const T *x, *w;
  const float *mean, *rstd;
  const T* dy;
  T* dx;
  Accumulate mode;
  bool old_ahead;  // what dx is added to is fetched ahead too
  float *dw, *db;  // (blocks, cols); null where neither gradient is wanted
};

/// What backward reads of a row. Packs of 16 bytes are fetched a round ahead into shared memory, where a thread fills and reads slots of
/// its own: that takes no registers, which the sums for dw and db leave few of, and no barrier. Narrower packs are read on the spot.
template <typename T, typename L>
struct RowAhead {
  static constexpr int V = L::width;
  static constexpr bool ahead = sizeof(Pack<T, V>) == 16;
  enum Operand { x, dy, old };                                         // old: what dx is added to
  static constexpr int slots = ahead ? 2 * L::packs * L::threads : 0;  // of one operand: this round's and the next one's

  Pack<T, V>* memory;  // (operands, 2, packs, threads)

  __device__ Pack<T, V>* slot(Operand which, int round, int k) const {
    return memory + which * slots + (round * L::packs + k) * L::threads + threadIdx.x;
  }
  /// Starts on row r for round 0 or 1.
  __device__ void fetch(const BackwardArgs<T>& a, int64_t r, int round) const {
#pragma unroll
    for (int k = 0; k < (ahead ? L::packs : 0); ++k) {
      if (L::column(k) >= a.cols) continue;
      const int64_t at = r * a.cols + L::column(k);
      copy_async_16(shared_address(slot(x, round, k)), a.x + at, true);
      copy_async_16(shared_address(slot(dy, round, k)), a.dy + at, true);
      if (a.old_ahead) copy_async_16(shared_address(slot(old, round, k)), a.dx + at, true);
    }
  }
  __device__ Pack<T, V> take(Operand which, const T* from, int64_t at, int round, int k, bool fetched = ahead) const {
    return ahead && fetched ? *slot(which, round, k) : load<V>(from + at);
  }
};

/// One row: dx, and what it adds to the sums for dw and db. `w` lies in shared memory.
template <typename T, typename L>
__device__ __forceinline__ void backward_row(const BackwardArgs<T>& a, const RowAhead<T, L>& row, int64_t r, int round, float mean,
                                             float rstd, const T* w, float (&dw)[L::packs][L::width], float (&db)[L::packs][L::width]) {
  constexpr int V = L::width;
  Pack<T, V> x[L::packs], dy[L::packs];
  float sum = 0, dot = 0;
#pragma unroll
  for (int k = 0; k < L::packs; ++k) {
    if (L::column(k) >= a.cols) continue;
    const int64_t at = r * a.cols + L::column(k);
    x[k] = row.take(row.x, a.x, at, round, k), dy[k] = row.take(row.dy, a.dy, at, round, k);
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
    const int64_t at = r * a.cols + L::column(k);
    const auto weight = load<V>(w + L::column(k));
    Pack<T, V> dx{};
    if (a.mode == Accumulate::add) dx = row.take(row.old, a.dx, at, round, k, a.old_ahead);
#pragma unroll
    for (int i = 0; i < V; ++i) {
      const float d = rstd * (widen(dy[k].v[i]) * widen(weight.v[i]) - mean_g - (widen(x[k].v[i]) - mean) * slope);
      dx.v[i] = narrow<T>(a.mode == Accumulate::add ? widen(dx.v[i]) + d : d);
    }
    store(a.dx + at, dx);
  }
}

/// Floats that `gather_groups` needs.
template <typename L>
constexpr int gather_floats = L::rows > 1 ? L::threads / warp_size* L::group* L::packs* L::width : 0;

/// Adds up the groups' sums of a block, those of a warp first, and leaves them in its row of `out`. `shared`: (warps, packs, width, group).
template <typename L>
__device__ __forceinline__ void gather_groups(int cols, float (&mine)[L::packs][L::width], float* shared, float* out) {
  constexpr int V = L::width, held = L::packs * V, warps = L::threads / warp_size;
  if constexpr (L::rows == 1) {
#pragma unroll
    for (int k = 0; k < L::packs; ++k)
      if (L::column(k) < cols)
#pragma unroll
        for (int i = 0; i < V; ++i) out[L::column(k) + i] = mine[k][i];
    return;
  }
  const int lane = static_cast<int>(threadIdx.x) % warp_size, warp = static_cast<int>(threadIdx.x) / warp_size;
  __syncthreads();  // what lay there has been read
#pragma unroll
  for (int j = 0; j < held; ++j) {
    float sum = mine[j / V][j % V];
#pragma unroll
    for (int distance = L::group; distance < warp_size; distance *= 2) sum += __shfl_xor_sync(all_lanes, sum, distance);
    if (lane < L::group) shared[(warp * held + j) * L::group + lane] = sum;
  }
  __syncthreads();
  for (int c = static_cast<int>(threadIdx.x); c < cols; c += L::threads) {
    const int pack = c / V, at = (pack / L::group * V + c % V) * L::group + pack % L::group;
    float total = 0;
#pragma unroll
    for (int i = 0; i < warps; ++i) total += shared[i * held * L::group + at];
    out[c] = total;
  }
}

/// The rows in turn: at any time all blocks are within a few megabytes of each other, and they end together.
template <typename T, typename L>
__global__ void __launch_bounds__(L::threads, 1) backward_kernel(BackwardArgs<T> a) {
  constexpr int V = L::width, width = L::group * L::packs * V;
  extern __shared__ __align__(16) unsigned char scratch[];  // rows on their way, then the groups' sums
  __shared__ alignas(16) unsigned char weights[sizeof(T) * width];
  T* const w = reinterpret_cast<T*>(weights);
  float dw[L::packs][V] = {}, db[L::packs][V] = {}, next_mean = 0, next_rstd = 0;
  const RowAhead<T, L> row{reinterpret_cast<Pack<T, V>*>(scratch)};
  const auto fetch = [&](int64_t r, int round) {
    if (r < a.rows) row.fetch(a, r, round), next_mean = a.mean[r], next_rstd = a.rstd[r];
    commit_copies();  // an empty group too, so that the count of groups stays right
  };
  const int64_t step = static_cast<int64_t>(gridDim.x) * L::rows;
  int64_t r = static_cast<int64_t>(blockIdx.x) * L::rows + L::row();
  fetch(r, 0);
  for (int c = static_cast<int>(threadIdx.x); c < a.cols; c += L::threads) w[c] = a.w[c];
  __syncthreads();
  for (int round = 0; r < a.rows; r += step, round ^= 1) {
    const float mean = next_mean, rstd = next_rstd;
    fetch(r + step, round ^ 1);
    wait_copies<1>();
    backward_row<T, L>(a, row, r, round, mean, rstd, w, dw, db);
  }
  if (a.dw == nullptr) return;
  gather_groups<L>(a.cols, dw, reinterpret_cast<float*>(scratch), a.dw + static_cast<int64_t>(blockIdx.x) * a.cols);
  gather_groups<L>(a.cols, db, reinterpret_cast<float*>(scratch), a.db + static_cast<int64_t>(blockIdx.x) * a.cols);
}

/// Backward's layout: blocks twice as large where registers allow it, one a multiprocessor, which leave half as many partial sums.
template <typename T, typename L>
using BackwardLayout =
    Layout<L::width, L::packs, L::group, L::group <= warp_size && sizeof(T) == 2 && L::packs * L::width <= 24 ? 512 : 256>;

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

template <RowOf Row, typename T>
void launch_forward(const Stream& stream, const LayerNormDims& dims, ForwardArgs<T> args) {
  if (dims.rows == 0 || dims.cols == 0) return;
  args.rows = dims.rows, args.cols = static_cast<int>(dims.cols), args.eps = static_cast<float>(dims.eps);
  const auto launch = [&](auto layout) {
    using L = decltype(layout);
    const int64_t blocks = (dims.rows + L::rows - 1) / L::rows, resident = int64_t{6} * state_of(stream).multiprocessors;
    forward_kernel<T, L, Row><<<static_cast<unsigned>(std::min(blocks, resident)), L::threads, 0, native(stream)>>>(args);
    cuda_check(cudaGetLastError(), "layer_norm_forward");
  };
  choose_layout<T>(dims.cols, launch, args.x, args.w, args.b, args.branch, args.sum, args.y);
}

/// Returns the number of blocks: as many as run at once, but no more than `partials`, which may be null, has room for.
template <typename L, typename T>
int64_t launch_backward(const Stream& stream, const LayerNormDims& dims, BackwardArgs<T> args, float* partials) {
  using Row = RowAhead<T, L>;
  constexpr size_t operand = Row::slots * sizeof(Pack<T, L::width>), room = 4096;  // room: for what else lies in shared memory
  const bool add = Row::ahead && args.dx != nullptr && args.mode == Accumulate::add;
  args.old_ahead = add && 3 * operand + room <= state_of(stream).block_shared_bytes;
  const size_t bytes = std::max((args.old_ahead ? 3 : 2) * operand, gather_floats<L> * sizeof(float));
  const auto kernel = backward_kernel<T, L>;
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)), "cudaFuncSetAttribute");
  cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared),
             "cudaFuncSetAttribute");
  int resident = 0;  // a multiprocessor
  cuda_check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, L::threads, bytes), "cudaOccupancy");
  const int64_t wanted = (dims.rows + L::rows - 1) / L::rows, together = int64_t{resident} * state_of(stream).multiprocessors;
  const int64_t blocks = std::min({wanted, std::max<int64_t>(together, 1), dims.chunks().count()});
  if (partials != nullptr) args.dw = partials, args.db = partials + blocks * dims.cols;
  kernel<<<static_cast<unsigned>(blocks), L::threads, bytes, native(stream)>>>(args);
  cuda_check(cudaGetLastError(), "layer_norm_backward");
  return blocks;
}

}  // namespace

template <typename T>
void layer_norm_forward(const Stream& stream, const LayerNormDims& dims, const T* x, const T* w, const T* b, T* y, Master<T>* mean,
                        Master<T>* rstd) {
  launch_forward<RowOf::x, T>(stream, dims, {.x = x, .w = w, .b = b, .y = y, .mean = mean, .rstd = rstd});
}

template <typename T>
void add_layer_norm_forward(const Stream& stream, const LayerNormDims& dims, const T* x, const T* branch, const T* w, const T* b, T* sum,
                            T* y, Master<T>* mean, Master<T>* rstd) {
  launch_forward<RowOf::sum, T>(stream, dims, {.x = x, .w = w, .b = b, .branch = branch, .sum = sum, .y = y, .mean = mean, .rstd = rstd});
}

template <typename T>
void layer_norm_backward(const Stream& stream, const LayerNormDims& dims, const T* x, const T* w, const Master<T>* mean,
                         const Master<T>* rstd, const T* dy, Destination<T> dx, Destination<Master<T>> dw, Destination<Master<T>> db,
                         Master<T>* partials) {
  const bool weights = dw.data != nullptr || db.data != nullptr;
  const BackwardArgs<T> args{.rows = dims.rows,
                             .cols = static_cast<int>(dims.cols),
                             .x = x,
                             .w = w,
                             .mean = mean,
                             .rstd = rstd,
                             .dy = dy,
                             .dx = dx.data,
                             .mode = dx.mode,
                             .old_ahead = false,
                             .dw = nullptr,
                             .db = nullptr};
  int64_t blocks = 0;
  const auto launch = [&]<typename L>(L) {
    blocks = launch_backward<BackwardLayout<T, L>>(stream, dims, args, weights ? partials : nullptr);
  };
  if (dims.rows > 0 && dims.cols > 0) choose_layout<T>(dims.cols, launch, x, w, dy, dx.data);
  sum_partials(stream, PartialSums<2>{blocks, dims.cols, partials, {dw, db}}, "layer_norm_backward");
}

template void layer_norm_forward(const Stream&, const LayerNormDims&, const float*, const float*, const float*, float*, float*, float*);
template void layer_norm_forward(const Stream&, const LayerNormDims&, const bf16*, const bf16*, const bf16*, bf16*, float*, float*);
template void add_layer_norm_forward(const Stream&, const LayerNormDims&, const float*, const float*, const float*, const float*, float*,
                                     float*, float*, float*);
template void add_layer_norm_forward(const Stream&, const LayerNormDims&, const bf16*, const bf16*, const bf16*, const bf16*, bf16*, bf16*,
                                     float*, float*);
template void layer_norm_backward(const Stream&, const LayerNormDims&, const float*, const float*, const float*, const float*, const float*,
                                  Destination<float>, Destination<float>, Destination<float>, float*);
template void layer_norm_backward(const Stream&, const LayerNormDims&, const bf16*, const bf16*, const float*, const float*, const bf16*,
                                  Destination<bf16>, Destination<float>, Destination<float>, float*);

}  // namespace ermoe::cuda
