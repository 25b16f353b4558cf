// The experts' linear layers on the GPU: chooses the kernel of each product, and sums dy into the bias gradient. The floor is
// arithmetic, 2 N K I O operations a product, but for the bias gradient, which reads dy once.
// Contract: ops/kernels/grouped_linear.h. Read next: grouped_linear.cuh, then the kernels in grouped_linear_*.cu.
#include "cuda/device/pack.cuh"
#include "cuda/kernels/grouped_linear.cuh"
#include "cuda/runtime/check.h"
#include "ops/kernels/gelu.h"

#include <algorithm>

namespace ermoe::cuda {
namespace {

/// Products of rows without a finish, and `weight` without the bias gradient: on any GPU.
template <Product P, typename T, typename Out = Usual<P, T>>
void multiply(const Stream& stream, const GroupedProduct<T>& p) {
  if constexpr (sizeof(T) == sizeof(bf16))
    if (rows_are_aligned<P>(p)) return grouped_mma<P, Out>(stream, p);
  grouped_simt<P, T, Out>(stream, p);
}

constexpr int bias_rows = 256, bias_threads = 256, bias_lanes = 32;

/// Sums of up to 256 rows of one expert: 32 lanes of V columns side by side, 8 rows in flight.
template <typename T, int V>
__global__ void __launch_bounds__(bias_threads)
    bias_partial_kernel(GroupedLinearDims dims, const int32_t* offsets, const T* dy, float* partial) {
  constexpr int rows_at_once = bias_threads / bias_lanes;
  __shared__ float sums[rows_at_once][bias_lanes * V];
  const RowTile rows = find_row_tile(offsets, static_cast<int>(dims.experts), static_cast<int>(dims.rows), blockIdx.x, bias_rows);
  if (rows.expert >= dims.experts) return;
  const int lane = threadIdx.x % bias_lanes, group = threadIdx.x / bias_lanes;
  const int64_t first = static_cast<int64_t>(blockIdx.y) * bias_lanes * V, column = first + lane * V;
  float sum[V] = {};
  if (column < dims.out) {
#pragma unroll 4
    for (int r = rows.first + group; r < rows.end; r += rows_at_once) {
      const auto pack = load<V>(dy + r * dims.out + column);
#pragma unroll
      for (int i = 0; i < V; ++i) sum[i] += widen(pack.v[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < V; ++i) sums[group][lane * V + i] = sum[i];
  __syncthreads();
  for (int c = threadIdx.x; c < bias_lanes * V; c += bias_threads) {
    float total = 0;
#pragma unroll
    for (int g = 0; g < rows_at_once; ++g) total += sums[g][c];
    if (first + c < dims.out) partial[blockIdx.x * dims.out + first + c] = total;
  }
}

/// One thread a column of one expert adds up its tiles, in their order.
__global__ void __launch_bounds__(bias_threads)
    bias_total_kernel(GroupedLinearDims dims, const int32_t* offsets, const float* partial, float* db, bool add) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * bias_threads + threadIdx.x;
  if (column >= dims.out) return;
  for (int64_t e = blockIdx.y; e < dims.experts; e += gridDim.y) {
    int64_t tile = 0;
    for (int64_t before = 0; before < e; ++before) tile += (offsets[before + 1] - offsets[before] + bias_rows - 1) / bias_rows;
    const int64_t end = tile + (offsets[e + 1] - offsets[e] + bias_rows - 1) / bias_rows;
    float total = 0;
#pragma unroll 8
    for (; tile < end; ++tile) total += partial[tile * dims.out + column];
    float* to = db + e * dims.out + column;
    *to = add ? *to + total : total;
  }
}

template <typename T, int V>
void sum_tiles(const Stream& stream, const GroupedLinearDims& dims, const int32_t* offsets, const T* dy, float* partial) {
  const dim3 blocks(static_cast<unsigned>(most_row_tiles(dims, bias_rows)),
                    static_cast<unsigned>((dims.out + bias_lanes * V - 1) / (bias_lanes * V)));
  bias_partial_kernel<T, V><<<blocks, bias_threads, 0, native(stream)>>>(dims, offsets, dy, partial);
  cuda_check(cudaGetLastError(), "grouped_linear_backward_bias");
}

/// db_e (+)= Σ dy over the rows of e.
template <typename T>
void sum_rows(const Stream& stream, const GroupedLinearDims& dims, const int32_t* offsets, const T* dy, Destination<float> db,
              float* scratch) {
  constexpr int V = pack_width<T>;
  if (all_aligned(dy) && dims.out % V == 0)
    sum_tiles<T, V>(stream, dims, offsets, dy, scratch);
  else
    sum_tiles<T, 1>(stream, dims, offsets, dy, scratch);
  const dim3 blocks(static_cast<unsigned>((dims.out + bias_threads - 1) / bias_threads),
                    static_cast<unsigned>(std::min<int64_t>(dims.experts, 65535)));
  bias_total_kernel<<<blocks, bias_threads, 0, native(stream)>>>(dims, offsets, scratch, db.data, db.mode == Accumulate::add);
  cuda_check(cudaGetLastError(), "grouped_linear_backward_bias");
}

}  // namespace

int64_t grouped_linear_backward_scratch(const Stream& stream, const GroupedLinearDims& dims) {
  const int64_t bias = most_row_tiles(dims, bias_rows) * dims.out;
  const bool any = dims.rows > 0 && dims.experts > 0 && dims.in > 0 && dims.out > 0;
  return any && state_of(stream).major == 9 ? std::max(bias, grouped_wgmma_weight_scratch(stream, dims)) : bias;
}

template <typename T>
void grouped_linear_forward(const Stream& stream, const GroupedLinearDims& dims, const T* x, const T* w, const T* b, const int32_t* offsets,
                            T* y) {
  if (dims.rows == 0 || dims.out == 0) return;
  const GroupedProduct<T> p{.dims = dims, .a = x, .b = w, .bias = b, .offsets = offsets, .c = y};
  if (!multiply_on_hopper<Product::forward, Finish::plain>(stream, p)) multiply<Product::forward>(stream, p);
}

template <typename T>
void grouped_linear_gelu_forward(const Stream& stream, const GroupedLinearDims& dims, const T* x, const T* w, const T* b,
                                 const int32_t* offsets, T* pre, T* y) {
  if (dims.rows == 0 || dims.out == 0) return;
  const GroupedProduct<T> p{.dims = dims, .a = x, .b = w, .bias = b, .offsets = offsets, .c = pre, .second = y};
  if (multiply_on_hopper<Product::forward, Finish::gelu>(stream, p)) return;
  multiply<Product::forward>(stream, p);
  gelu_forward(stream, {dims.rows * dims.out}, pre, y);
}

template <typename T>
void grouped_linear_backward_input(const Stream& stream, const GroupedLinearDims& dims, const T* w, const int32_t* offsets, const T* dy,
                                   T* dx, Accumulate mode) {
  if (dims.rows == 0 || dims.in == 0) return;
  const GroupedProduct<T> p{.dims = dims, .a = dy, .b = w, .offsets = offsets, .c = dx, .mode = mode};
  if (!multiply_on_hopper<Product::input, Finish::plain>(stream, p)) multiply<Product::input>(stream, p);
}

template <typename T>
void grouped_linear_gelu_backward_input(const Stream& stream, const GroupedLinearDims& dims, const T* w, const int32_t* offsets,
                                        const T* dy, T* pre, T* y) {
  if (dims.rows == 0 || dims.in == 0) return;
  GroupedProduct<T> p{.dims = dims, .a = dy, .b = w, .offsets = offsets, .c = pre, .second = y};
  if (multiply_on_hopper<Product::input, Finish::gelu_slope>(stream, p)) return;
  p.c = y;
  multiply<Product::input>(stream, p);
  gelu_backward_with_y(stream, {dims.rows * dims.in}, pre, y);
}

template <typename T, typename G>
void grouped_linear_backward_weight(const Stream& stream, const GroupedLinearDims& dims, const T* x, const int32_t* offsets, const T* dy,
                                    Destination<G> dw, Destination<Master<T>> db, float* scratch) {
  if (dims.experts == 0 || dims.out == 0) return;
  if (dw.data != nullptr && dims.in > 0) {
    const GroupedProduct<T> p{.dims = dims, .a = dy, .b = x, .offsets = offsets, .c = dw.data, .mode = dw.mode, .bias_sums = db};
    const bool fours = sizeof(G) == sizeof(float) || reinterpret_cast<uintptr_t>(dw.data) % 8 == 0;
    if constexpr (sizeof(T) == sizeof(bf16))
      if (fours && suits_wgmma<Product::weight>(stream, p)) return grouped_wgmma_weight<G>(stream, p, scratch);
    multiply<Product::weight, T, G>(stream, p);
  }
  if (db.data != nullptr) sum_rows(stream, dims, offsets, dy, db, scratch);
}

#define ERMOE_GROUPED_LINEAR(T)                                                                                                          \
  template void grouped_linear_forward(const Stream&, const GroupedLinearDims&, const T*, const T*, const T*, const int32_t*, T*);       \
  template void grouped_linear_gelu_forward(const Stream&, const GroupedLinearDims&, const T*, const T*, const T*, const int32_t*, T*,   \
                                            T*);                                                                                         \
  template void grouped_linear_backward_input(const Stream&, const GroupedLinearDims&, const T*, const int32_t*, const T*, T*,           \
                                              Accumulate);                                                                               \
  template void grouped_linear_gelu_backward_input(const Stream&, const GroupedLinearDims&, const T*, const int32_t*, const T*, T*, T*); \
  template void grouped_linear_backward_weight(const Stream&, const GroupedLinearDims&, const T*, const int32_t*, const T*,              \
                                               Destination<float>, Destination<float>, float*);
ERMOE_GROUPED_LINEAR(float)
ERMOE_GROUPED_LINEAR(bf16)
template void grouped_linear_backward_weight(const Stream&, const GroupedLinearDims&, const bf16*, const int32_t*, const bf16*,
                                             Destination<bf16>, Destination<float>, float*);
#undef ERMOE_GROUPED_LINEAR

}  // namespace ermoe::cuda
