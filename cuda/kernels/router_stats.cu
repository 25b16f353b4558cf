// Routing statistics on the GPU. Sums over tokens go in two levels: chunks of rows, in float within a thread and in double between
// threads, then the chunks in order. Histograms count in whole numbers, whose sums no order changes. The floor is reading x and c
// once; what is done with scores has blocks of the same launch and hides behind that.
// Contract: ops/kernels/router_stats.h.
#include "ops/kernels/router_stats.h"

#include "cuda/device/column_partials.cuh"
#include "cuda/device/pack.cuh"
#include "cuda/device/ranked.cuh"
#include "cuda/device/reduce.cuh"

#include <algorithm>
#include <type_traits>

namespace ermoe::cuda {
namespace {

constexpr int threads = 256;
constexpr int moments = 3;  // Σs, Σs², pairs

/// Scratch memory: Σx and Σc of each chunk | moments of each chunk.
struct Scratch {
  double* rows;    // (chunks, 2, D)
  double* scores;  // (chunks, 3, E)

  Scratch(const RouterStatsDims& dims, void* memory) : rows(static_cast<double*>(memory)), scores(rows + chunks_of(dims.N) * 2 * dims.D) {}
};

/// Block (chunk, …, tile of columns): the sum of each column of x over the chunk's rows, left in `to` (D).
template <typename T, int V>
__device__ __forceinline__ void sum_rows(const RouterStatsDims& dims, const T* x, const uint8_t* allow, double* to) {
  __shared__ float sums[threads * V];
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t first = static_cast<int64_t>(blockIdx.z) * threads * V, begin = blockIdx.x * chunk_rows;
  const int64_t end = min(begin + chunk_rows, dims.N);
  const int packs = static_cast<int>(min((dims.D - first) / V, static_cast<int64_t>(threads))), down = threads / packs;
  const int pack = thread % packs, lane = thread / packs;
  const T* const from = x + first + pack * V;
  const bool all = allow == nullptr || dims.closed == ClosedTokens::count;
  float own[V] = {};
  if (lane < down) {
#pragma unroll 8
    for (int64_t row = begin + lane; row < end; row += down) {
      if (!all && allow[row * dims.E] == 0) continue;
      const auto in = load<V>(from + row * dims.D);
#pragma unroll
      for (int v = 0; v < V; ++v) own[v] += widen(in.v[v]);
    }
#pragma unroll
    for (int v = 0; v < V; ++v) sums[(lane * packs + pack) * V + v] = own[v];
  }
  __syncthreads();
  for (int column = thread; column < packs * V; column += threads) {
    double total = 0;
    for (int l = 0; l < down; ++l) total += static_cast<double>(sums[l * packs * V + column]);
    to[first + column] = total;
  }
}

/// Moments of a score, for `column_partials`.
struct ScoreMoments {
  int64_t experts;
  const float* scores;
  const uint8_t* allow;

  __device__ void add(int64_t row, int64_t expert, double (&sums)[moments]) const {
    const int64_t at = row * experts + expert;
    if ((allow != nullptr && allow[at] == 0) || isnan(scores[at])) return;
    const auto score = static_cast<double>(scores[at]);
    sums[0] += score;
    sums[1] += score * score;
    sums[2] += 1;
  }
};

/// Counts the K best allowed scores of each token of a block's chunk, a group of G threads a token.
template <int G>
__device__ __forceinline__ void count_best(const RouterStatsDims& dims, const float* scores, const uint8_t* allow, double* histogram) {
  const int64_t begin = blockIdx.x * chunk_rows, end = min(begin + chunk_rows, dims.N);
  for (int64_t token = begin + threadIdx.x / G; token < end; token += threads / G) {
    const int64_t at = token * dims.E;
    const auto candidate = [&](int32_t e) { return allow != nullptr && allow[at + e] == 0 ? NAN : scores[at + e]; };
    Ranked last = best_rank();
    for (int64_t k = 0; k < dims.K; ++k) {
      last = next_of_group<G>(dims.E, last, candidate);
      if (last.id == worst_rank().id) break;
      if (threadIdx.x % G != 0) continue;
      const double bin = (static_cast<double>(last.value) + 1) * 0.5 * static_cast<double>(RouterStatsDims::bins);
      atomicAdd(&histogram[static_cast<int64_t>(fmin(fmax(bin, 0.0), static_cast<double>(RouterStatsDims::bins - 1)))], 1.0);
    }
  }
}

/// Block (chunk, what is summed, tile of columns): scores come first, since rows take longer than they do only all together.
template <typename T, int V, int G>
__global__ void __launch_bounds__(threads) collect_kernel(RouterStatsDims dims, const T* x, const T* c, const float* scores,
                                                          const uint8_t* allow, Scratch scratch, double* histogram) {
  if (blockIdx.y > 0)
    return sum_rows<T, V>(dims, blockIdx.y == 1 ? x : c, allow, scratch.rows + (blockIdx.x * 2 + blockIdx.y - 1) * dims.D);
  if (blockIdx.z > 0) return;
  count_best<G>(dims, scores, allow, histogram);
  column_partials_of_block<moments>({1, dims.N, dims.E}, ScoreMoments{dims.E, scores, allow}, scratch.scores);
}

constexpr int lanes = 8, columns = threads / lanes;

/// sums[at + i] += Σ over chunks of partial[chunk stride + i], eight threads a column.
__device__ void add_chunks(int64_t chunks, int64_t stride, int64_t size, int64_t i, const double* partial, double* to) {
  __shared__ double sums[lanes][columns];
  const int column = static_cast<int>(threadIdx.x) % columns, lane = static_cast<int>(threadIdx.x) / columns;
  double own = 0;
  if (i + column < size) {
#pragma unroll 8
    for (int64_t chunk = lane; chunk < chunks; chunk += lanes) own += partial[chunk * stride + i + column];
  }
  sums[lane][column] = own;
  __syncthreads();
  if (lane == 0 && i + column < size) {
    double total = 0;
    for (int l = 0; l < lanes; ++l) total += sums[l][column];
    to[i + column] += total;
  }
}

/// Blocks of 32 columns: those of x and c, then those of the moments.
__global__ void __launch_bounds__(threads)
    add_totals_kernel(RouterStatsDims dims, int64_t row_blocks, bool with_context, Scratch scratch, double* sums) {
  const int64_t chunks = chunks_of(dims.N), block = blockIdx.x;
  if (block == 0 && threadIdx.x == 0) sums[0] += static_cast<double>(dims.N);
  if (block < row_blocks)
    add_chunks(chunks, 2 * dims.D, with_context ? 2 * dims.D : dims.D, block * columns, scratch.rows, sums + dims.sum_x());
  else
    add_chunks(chunks, moments * dims.E, moments * dims.E, (block - row_blocks) * columns, scratch.scores, sums + dims.sum_s());
}

}  // namespace

int64_t router_stats_scratch(const RouterStatsDims& dims) {
  return chunks_of(dims.N) * (2 * dims.D + moments * dims.E) * static_cast<int64_t>(sizeof(double));
}

template <typename T>
void accumulate_router_stats(const Stream& stream, const RouterStatsDims& dims, const T* x, const T* c, const Master<T>* scores,
                             const uint8_t* allow, double* sums, void* memory) {
  if (dims.N == 0) return;
  const Scratch scratch(dims, memory);
  const auto collect = [&]<int V, int G>(std::integral_constant<int, V>, std::integral_constant<int, G>) {
    const dim3 grid(static_cast<unsigned>(chunks_of(dims.N)), c == nullptr ? 2 : 3, blocks_for(dims.D, threads * V));
    collect_kernel<T, V, G><<<grid, threads, 0, native(stream)>>>(dims, x, c, scores, allow, scratch, sums + dims.histogram());
    cuda_check(cudaGetLastError(), "router_stats: chunks");
  };
  const auto with_packs = [&](auto group) {
    constexpr int V = pack_width<T>;
    if (dims.D % V == 0 && all_aligned(x, c)) return collect(std::integral_constant<int, V>{}, group);
    collect(std::integral_constant<int, 1>{}, group);
  };
  if (dims.E <= 8)
    with_packs(std::integral_constant<int, 8>{});
  else
    with_packs(std::integral_constant<int, 32>{});
  const int64_t row_blocks = blocks_for(c == nullptr ? dims.D : 2 * dims.D, columns), score_blocks = blocks_for(moments * dims.E, columns);
  add_totals_kernel<<<static_cast<unsigned>(std::max<int64_t>(1, row_blocks + score_blocks)), threads, 0, native(stream)>>>(
      dims, row_blocks, c != nullptr, scratch, sums);
  cuda_check(cudaGetLastError(), "router_stats: totals");
}

namespace {

constexpr int wide = 1024;

/// running moves towards sum / count by `rate`.
__device__ void blend(float& running, double sum, double count, double rate) {
  running = static_cast<float>((1 - rate) * static_cast<double>(running) + rate * sum / count);
}

/// One block: everything depends on the number of updates, which it changes. Bins are read once, ahead of everything else.
__global__ void __launch_bounds__(wide)
    update_kernel(RouterStatsDims dims, const double* sums, double momentum, RunningStats<float> running) {
  constexpr int own_bins = static_cast<int>(RouterStatsDims::bins) / wide;
  static_assert(own_bins * wide == RouterStatsDims::bins);
  const double* const histogram = sums + dims.histogram() + threadIdx.x;
  double bins[own_bins], own = 0;
#pragma unroll
  for (int i = 0; i < own_bins; ++i) bins[i] = histogram[i * wide];
#pragma unroll
  for (int i = 0; i < own_bins; ++i) own += bins[i];
  const double rate = *running.updates == 0 ? 1.0 : momentum;
  if (const double rows = sums[dims.rows()]; rows > 0)
    for (int64_t d = threadIdx.x; d < dims.D; d += wide) {
      blend(running.mean_x[d], sums[dims.sum_x() + d], rows, rate);
      blend(running.mean_c[d], sums[dims.sum_c() + d], rows, rate);
    }
  for (int64_t e = threadIdx.x; e < dims.E; e += wide) {
    const double pairs = sums[dims.pairs() + e];
    if (pairs == 0) continue;
    const double mean = sums[dims.sum_s() + e] / pairs;
    blend(running.score_mean[e], mean, 1, rate);
    blend(running.score_var[e], fmax(0.0, sums[dims.sum_s2() + e] / pairs - mean * mean), 1, rate);
  }
  if (const double total = block_sum<wide>(own); total > 0)
#pragma unroll
    for (int i = 0; i < own_bins; ++i) blend(running.histogram[threadIdx.x + i * wide], bins[i], total, rate);
  if (threadIdx.x == 0) *running.updates += 1;
}

__global__ void __launch_bounds__(threads)
    calibrate_kernel(RouterStatsDims dims, const float* scores, RunningStats<float> running, float* order) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x, e = i % dims.E;
  if (i >= dims.N * dims.E) return;
  const float score = scores[i];
  order[i] = *running.updates == 0 ? score : (score - running.score_mean[e]) * (1 / sqrtf(running.score_var[e] + 1e-6f));
}

/// One block; each thread takes a run of neighbouring bins.
__global__ void __launch_bounds__(wide) quantile_kernel(int64_t bins, const float* histogram, double q, float* value) {
  __shared__ double scan[wide];
  __shared__ int found;  // the first thread whose bins reach the share
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t run = (bins + wide - 1) / wide, begin = thread * run, end = min(begin + run, bins);
  double own = 0;
  for (int64_t bin = begin; bin < end; ++bin) own += static_cast<double>(histogram[bin]);
  scan[thread] = own;
  if (thread == 0) found = wide;
  __syncthreads();
  for (int step = 1; step < wide; step *= 2) {
    const double add = thread >= step ? scan[thread - step] : 0.0;
    __syncthreads();
    scan[thread] += add;
    __syncthreads();
  }
  const double wanted = q * scan[wide - 1];
  double below = thread == 0 ? 0.0 : scan[thread - 1], answer = 0;
  bool here = false;
  for (int64_t bin = begin; bin < end && !here; ++bin) {
    const auto share = static_cast<double>(histogram[bin]);
    here = share > 0 && below + share >= wanted;
    if (here) answer = -1 + 2 * (static_cast<double>(bin) + (wanted - below) / share) / static_cast<double>(bins);
    below += share;
  }
  if (here) atomicMin(&found, thread);
  __syncthreads();
  if (thread == found) *value = static_cast<float>(answer);
  if (thread == 0 && found == wide) *value = scan[wide - 1] > 0 ? 1.0f : -INFINITY;
}

}  // namespace

template <typename T>
void update_router_stats(const Stream& stream, const RouterStatsDims& dims, const double* sums, double momentum,
                         const RunningStats<T>& running) {
  update_kernel<<<1, wide, 0, native(stream)>>>(dims, sums, momentum, running);
  cuda_check(cudaGetLastError(), "update_router_stats");
}

template <typename T>
void calibrate_scores(const Stream& stream, const RouterStatsDims& dims, const T* scores, const RunningStats<T>& running, T* order) {
  if (dims.N * dims.E == 0) return;
  calibrate_kernel<<<blocks_for(dims.N * dims.E, threads), threads, 0, native(stream)>>>(dims, scores, running, order);
  cuda_check(cudaGetLastError(), "calibrate_scores");
}

template <typename T>
void histogram_quantile(const Stream& stream, int64_t bins, const T* histogram, double q, T* value) {
  quantile_kernel<<<1, wide, 0, native(stream)>>>(bins, histogram, q, value);
  cuda_check(cudaGetLastError(), "histogram_quantile");
}

template void accumulate_router_stats(const Stream&, const RouterStatsDims&, const float*, const float*, const float*, const uint8_t*,
                                      double*, void*);
template void accumulate_router_stats(const Stream&, const RouterStatsDims&, const bf16*, const bf16*, const float*, const uint8_t*,
                                      double*, void*);
template void update_router_stats(const Stream&, const RouterStatsDims&, const double*, double, const RunningStats<float>&);
template void calibrate_scores(const Stream&, const RouterStatsDims&, const float*, const RunningStats<float>&, float*);
template void histogram_quantile(const Stream&, int64_t, const float*, double, float*);

}  // namespace ermoe::cuda
