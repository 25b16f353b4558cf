// The table look-up on the GPU: a copy of rows forward. Backward the ids are sorted, equal ones next to one another and in their
// order, and cut into chunks of equal length, so that a word in every text costs no more than a rare one. What a chunk adds to
// a row that its neighbours also name waits until all have run. No atomics: the same bits in every run.
// Contract: ops/kernels/embedding.h.
#include "ops/kernels/embedding.h"

#include "cuda/device/elementwise.cuh"
#include "cuda/device/index.cuh"

#include <cub/device/device_radix_sort.cuh>

#include <bit>

namespace ermoe::cuda {
namespace {

template <typename T>
struct Forward {
  EmbeddingDims dims;
  const T* table;
  const int32_t* ids;
  T* y;
  template <int V>
  __device__ void run(int64_t i) const {
    if (V > 1 && dims.width % V != 0) {
#pragma unroll
      for (int k = 0; k < V; ++k) run<1>(i + k);
      return;
    }
    const auto [row, column] = divide(i, dims.width);
    const int64_t id = ids[row];
    Pack<T, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) out.v[k] = narrow<T>(NAN);
    if (id >= 0 && id < dims.rows) out = load<V>(table + id * dims.width + column);
    store(y + i, out);
  }
};

/// Ids outside the table become one past its last row.
struct Prepare {
  int64_t rows;
  const int32_t* ids;
  uint32_t *keys, *positions;
  template <int V>
  __device__ void run(int64_t i) const {
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const int64_t id = ids[i + k];
      keys[i + k] = static_cast<uint32_t>(id < 0 || id >= rows ? rows : id);
      positions[i + k] = static_cast<uint32_t>(i + k);
    }
  }
};

constexpr int chunk_size = 64;
constexpr int threads = 128;

/// Sorted ids and what is made of them. A run is a row of equal ids.
struct Sorted {
  int64_t count, rows, width;
  const uint32_t *keys, *positions;  // (count)
  float *heads, *tails;              // (chunks, width): of a run that began in an earlier chunk, and of one that goes on in the next
  float* dtable;                     // (rows, width)

  __device__ int64_t begin(int64_t chunk) const { return chunk * chunk_size; }
  __device__ int64_t end(int64_t chunk) const { return min(count, begin(chunk) + chunk_size); }
  /// Whether the run at sorted place i > 0 began before it.
  __device__ bool continues(int64_t i) const { return i > 0 && i < count && keys[i] == keys[i - 1]; }
};

template <int V>
__device__ __forceinline__ void add_to(float* to, const float (&sum)[V]) {
#pragma unroll
  for (int k = 0; k < V; ++k) to[k] += sum[k];
}

/// Blocks (chunk, columns): sums of the chunk's runs.
template <typename T, int V>
__global__ void __launch_bounds__(threads) sum_runs_kernel(Sorted s, const T* dy) {
  const int64_t chunk = blockIdx.x, begin = s.begin(chunk), end = s.end(chunk);
  const int64_t column = (static_cast<int64_t>(blockIdx.y) * threads + threadIdx.x) * V;
  if (column >= s.width) return;
  bool open_left = s.continues(begin);
  float sum[V] = {};
#pragma unroll 4
  for (int64_t i = begin; i < end; ++i) {
    const auto upper = load<V>(dy + s.positions[i] * s.width + column);
#pragma unroll
    for (int k = 0; k < V; ++k) sum[k] += widen(upper.v[k]);
    const uint32_t key = s.keys[i];
    const bool last = i + 1 == end, goes_on = s.continues(i + 1);
    if (!last && goes_on) continue;
    if (key < s.rows) {
      if (open_left || goes_on) {
        float* const open = (open_left ? s.heads : s.tails) + chunk * s.width + column;
#pragma unroll
        for (int k = 0; k < V; ++k) open[k] = sum[k];
      } else {
        add_to(s.dtable + key * s.width + column, sum);
      }
    }
    open_left = false;
#pragma unroll
    for (int k = 0; k < V; ++k) sum[k] = 0;
  }
}

/// Blocks (chunk, columns): the chunk where a run of several begins adds them all up.
template <int V>
__global__ void __launch_bounds__(threads) join_runs_kernel(Sorted s) {
  const int64_t chunk = blockIdx.x;
  const int64_t column = (static_cast<int64_t>(blockIdx.y) * threads + threadIdx.x) * V;
  if (column >= s.width || !s.continues(s.end(chunk))) return;
  const uint32_t key = s.keys[s.end(chunk) - 1];
  const bool began_earlier = s.continues(s.begin(chunk)) && s.keys[s.begin(chunk)] == key;
  if (began_earlier || key >= s.rows) return;
  float sum[V];
#pragma unroll
  for (int k = 0; k < V; ++k) sum[k] = s.tails[chunk * s.width + column + k];
  for (int64_t next = chunk + 1;; ++next) {
    add_to(sum, reinterpret_cast<const float(&)[V]>(s.heads[next * s.width + column]));
    if (!s.continues(s.end(next)) || s.keys[s.end(next)] != key) break;
  }
  add_to(s.dtable + key * s.width + column, sum);
}

int64_t chunks_of(const EmbeddingDims& dims) { return (dims.count + chunk_size - 1) / chunk_size; }

/// How the scratch memory is cut.
struct Scratch {
  int64_t ids, borders, sort;  // bytes of one array of ids, of heads or tails, of the sort's own

  explicit Scratch(const EmbeddingDims& dims) {
    const auto padded = [](int64_t bytes) { return (bytes + 255) / 256 * 256; };
    size_t needed = 0;
    const uint32_t* none = nullptr;
    cuda_check(cub::DeviceRadixSort::SortPairs(nullptr, needed, none, static_cast<uint32_t*>(nullptr), none,
                                               static_cast<uint32_t*>(nullptr), static_cast<int>(dims.count), 0, bits(dims)),
               "embedding_backward");
    ids = padded(dims.count * 4);
    borders = padded(chunks_of(dims) * dims.width * 4);
    sort = static_cast<int64_t>(needed);
  }
  static int bits(const EmbeddingDims& dims) { return static_cast<int>(std::bit_width(static_cast<uint64_t>(dims.rows) | 1)); }
  int64_t bytes() const { return 4 * ids + 2 * borders + sort; }
};

}  // namespace

template <typename T>
void embedding_forward(const Stream& stream, const EmbeddingDims& dims, const T* table, const int32_t* ids, T* y) {
  elementwise<T>(stream, dims.count * dims.width, Forward<T>{dims, table, ids, y}, "embedding_forward", table, y);
}

int64_t embedding_scratch(const EmbeddingDims& dims) { return Scratch(dims).bytes(); }

template <typename T>
void embedding_backward(const Stream& stream, const EmbeddingDims& dims, const int32_t* ids, const T* dy, Master<T>* dtable,
                        Accumulate mode, std::byte* scratch) {
  if (mode == Accumulate::overwrite && dims.rows * dims.width > 0)
    cuda_check(cudaMemsetAsync(dtable, 0, static_cast<size_t>(dims.rows * dims.width) * sizeof(float), native(stream)),
               "embedding_backward");
  if (dims.count == 0 || dims.width == 0) return;
  const Scratch sizes(dims);
  uint32_t* arrays[4];
  for (int i = 0; i < 4; ++i) arrays[i] = reinterpret_cast<uint32_t*>(scratch + i * sizes.ids);
  const auto [keys, positions, sorted_keys, sorted_positions] = arrays;
  auto* const heads = reinterpret_cast<float*>(scratch + 4 * sizes.ids);
  auto* const tails = reinterpret_cast<float*>(scratch + 4 * sizes.ids + sizes.borders);
  elementwise<int32_t>(stream, dims.count, Prepare{dims.rows, ids, keys, positions}, "embedding_backward", ids);
  auto needed = static_cast<size_t>(sizes.sort);
  cuda_check(cub::DeviceRadixSort::SortPairs(scratch + 4 * sizes.ids + 2 * sizes.borders, needed, keys, sorted_keys, positions,
                                             sorted_positions, static_cast<int>(dims.count), 0, Scratch::bits(dims), native(stream)),
             "embedding_backward");
  const Sorted sorted{dims.count, dims.rows, dims.width, sorted_keys, sorted_positions, heads, tails, dtable};
  const auto launch = [&]<int V>(std::integral_constant<int, V>) {
    constexpr int64_t block = int64_t{threads} * V;
    const dim3 grid(static_cast<unsigned>(chunks_of(dims)), static_cast<unsigned>((dims.width + block - 1) / block));
    sum_runs_kernel<T, V><<<grid, threads, 0, native(stream)>>>(sorted, dy);
    cuda_check(cudaGetLastError(), "embedding_backward");
    join_runs_kernel<V><<<grid, threads, 0, native(stream)>>>(sorted);
    cuda_check(cudaGetLastError(), "embedding_backward");
  };
  if (dims.width % pack_width<T> == 0 && all_aligned(dy))
    launch(std::integral_constant<int, pack_width<T>>{});
  else
    launch(std::integral_constant<int, 1>{});
}

template void embedding_forward(const Stream&, const EmbeddingDims&, const float*, const int32_t*, float*);
template void embedding_forward(const Stream&, const EmbeddingDims&, const bf16*, const int32_t*, bf16*);
template void embedding_backward(const Stream&, const EmbeddingDims&, const int32_t*, const float*, float*, Accumulate, std::byte*);
template void embedding_backward(const Stream&, const EmbeddingDims&, const int32_t*, const bf16*, float*, Accumulate, std::byte*);

}  // namespace ermoe::cuda
