// The optimizer on the GPU, bound by memory: per element 16 bytes read (p, g, m, v) and 12 written, 14 with the bf16 twin. All
// parameters take one launch: a block finds its piece in a table. The norm reads each gradient once and is added up in a fixed
// order; what it decides stays on the device. Contract: ops/kernels/adamw.h.
#include "ops/kernels/adamw.h"

#include "cuda/device/elementwise.cuh"
#include "cuda/device/reduce.cuh"

namespace ermoe::cuda {
namespace {

constexpr int threads = 256;

/// Per-element part of Adam.
struct Adam {
  float lr, keep, beta1, beta2, rest1, rest2, eps, scale, inverse1, inverse2;

  __host__ __device__ explicit Adam(const AdamDims& d)
      : lr(static_cast<float>(d.lr)),
        keep(static_cast<float>(1 - d.lr * d.decay)),
        beta1(static_cast<float>(d.beta1)),
        beta2(static_cast<float>(d.beta2)),
        rest1(1 - beta1),
        rest2(1 - beta2),
        eps(static_cast<float>(d.eps)),
        scale(static_cast<float>(d.grad_scale)),
        inverse1(static_cast<float>(1 / d.correction1)),
        inverse2(static_cast<float>(1 / d.correction2)) {}

  /// Spelled out, so that every kernel rounds alike.
  __device__ float operator()(float g, float& m, float& v) const {
    const float scaled = g * scale;
    m = __fmaf_rn(beta1, m, rest1 * scaled);
    v = __fmaf_rn(rest2 * scaled, scaled, beta2 * v);
    return m * inverse1 / (sqrtf(v * inverse2) + eps);
  }
};

/// One pack of the moments; returns the directions.
template <int V, typename G>
__device__ __forceinline__ Pack<float, V> advance(const Adam& adam, const G* g, float* m, float* v) {
  const auto grad = load<V>(g);
  auto first = load<V>(m), second = load<V>(v);
  Pack<float, V> direction;
#pragma unroll
  for (int k = 0; k < V; ++k) direction.v[k] = adam(widen(grad.v[k]), first.v[k], second.v[k]);
  store(m, first);
  store(v, second);
  return direction;
}

template <int V>
__device__ __forceinline__ Pack<float, V> stepped(const Adam& adam, Pack<float, V> p, const Pack<float, V>& direction) {
#pragma unroll
  for (int k = 0; k < V; ++k) p.v[k] = adam.keep * p.v[k] - adam.lr * direction.v[k];
  return p;
}

struct Step {
  Adam adam;
  float* p;
  const float* g;
  float *m, *v;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto before = load<V>(p + i);
    store(p + i, stepped<V>(adam, before, advance<V>(adam, g + i, m + i, v + i)));
  }
};

/// Each thread reads the state: one line of the cache for all.
template <typename G, typename To>
struct Direction {
  AdamRule rule;
  const StepState* state;
  double lr_scale;
  const G* g;
  float *m, *v;
  To* direction;
  template <int V>
  __device__ void run(int64_t i) const {
    Pack<To, V> out{};
    if (state->accepted != 0) {
      const Adam adam(adam_dims(rule, *state, lr_scale, 0));
      const auto advanced = advance<V>(adam, g + i, m + i, v + i);
#pragma unroll
      for (int k = 0; k < V; ++k) out.v[k] = narrow<To>(advanced.v[k] * adam.lr);
    }
    store(direction + i, out);
  }
};

/// Elements i … i + V - 1 of a row of a table.
template <int V>
__device__ __forceinline__ void update(const AdamwRow<float>& row, const Adam& adam, int64_t i) {
  const auto before = load<V>(row.p + i);
  const auto after = stepped<V>(adam, before, advance<V>(adam, row.g + i, row.m + i, row.v + i));
  store(row.p + i, after);
  if (row.compute == nullptr) return;
  Pack<bf16, V> twin;
#pragma unroll
  for (int k = 0; k < V; ++k) twin.v[k] = narrow<bf16>(after.v[k]);
  store(row.compute + i, twin);
}

__device__ bool aligned(const AdamwRow<float>& row) {
  const auto all = reinterpret_cast<uintptr_t>(row.p) | reinterpret_cast<uintptr_t>(row.g) | reinterpret_cast<uintptr_t>(row.m) |
                   reinterpret_cast<uintptr_t>(row.v) | reinterpret_cast<uintptr_t>(row.compute) * 2;
  return all % 16 == 0;
}

/// A block takes one piece.
__global__ void __launch_bounds__(threads)
    table_kernel(AdamRule rule, const AdamwRow<float>* table, const AdamwPiece* pieces, const StepState* state) {
  constexpr int V = pack_width<float>;
  const AdamwPiece piece = pieces[blockIdx.x];
  const AdamwRow<float> row = table[piece.row];
  const int64_t end = min(row.numel, piece.begin + adamw_piece);
  if (state->accepted == 0) return;
  const Adam adam(adam_dims(rule, *state, row.lr_scale, row.decay));
  const int64_t packed = aligned(row) ? end / V * V : piece.begin;  // pieces begin at multiples of V
  for (int64_t i = piece.begin + threadIdx.x * V; i < packed; i += threads * V) update<V>(row, adam, i);
  for (int64_t i = packed + threadIdx.x; i < end; i += threads) update<1>(row, adam, i);
}

/// Blocks: pieces of x.
template <int V, typename T>
__global__ void __launch_bounds__(threads) squares_kernel(int64_t numel, const T* x, float* partials) {
  const int64_t begin = blockIdx.x * norm_piece, end = min(numel, begin + norm_piece), packed = end / V * V;
  float sum = 0;
#pragma unroll 4
  for (int64_t i = begin + threadIdx.x * V; i < packed; i += threads * V) {
    const auto in = load<V>(x + i);
#pragma unroll
    for (int k = 0; k < V; ++k) sum += widen(in.v[k]) * widen(in.v[k]);
  }
  for (int64_t i = packed + threadIdx.x; i < end; i += threads) sum += widen(x[i]) * widen(x[i]);
  sum = block_sum<threads>(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

constexpr int sum_threads = 1024;

__global__ void __launch_bounds__(sum_threads) sum_kernel(int64_t count, const float* partials, double* sum) {
  double mine = 0;
  for (int64_t i = threadIdx.x; i < count; i += sum_threads) mine += static_cast<double>(partials[i]);
  const double total = block_sum<sum_threads>(mine);
  if (threadIdx.x == 0) *sum = total;
}

__global__ void judge_kernel(AdamRule rule, double clip, int64_t count, const double* squares, int64_t fault_count, const float* faults,
                             StepState* state) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += squares[i];
  const double norm = sqrt(sum);
  bool accepted = isfinite(norm);
  for (int64_t i = 0; i < fault_count; ++i) accepted = accepted && faults[i] == 0;
  state->grad_norm = norm;
  if (accepted)
    count_step(rule, clip > 0 && norm > clip ? clip / norm : 1, *state);
  else
    state->accepted = 0;
}

__global__ void add_up_kernel(int64_t count, const double* values, double* sum) {
  double total = 0;
  for (int64_t i = 0; i < count; ++i) total += values[i];
  *sum = total;
}

__global__ void accept_kernel(AdamRule rule, double lr, double grad_scale, StepState* state) {
  state->lr = lr;
  count_step(rule, grad_scale, *state);
}

__global__ void learning_rate_kernel(double lr, StepState* state) { state->lr = lr; }

struct Average {
  double decay;
  const StepState* state;
  const float* x;
  float* average;
  template <int V>
  __device__ void run(int64_t i) const {
    if (state != nullptr && state->accepted == 0) return;
    const double kept = state == nullptr ? decay : average_decay(decay, state->steps);
    const auto keep = static_cast<float>(kept), take = static_cast<float>(1 - kept);
    const auto in = load<V>(x + i);
    auto out = load<V>(average + i);
#pragma unroll
    for (int k = 0; k < V; ++k) out.v[k] = keep * out.v[k] + take * in.v[k];
    store(average + i, out);
  }
};

}  // namespace

template <typename T>
void adamw_step(const Stream& stream, const AdamDims& dims, T* p, const T* g, T* m, T* v) {
  elementwise<T>(stream, dims.numel, Step{Adam(dims), p, g, m, v}, "adamw_step", p, g, m, v);
}

template <typename T, typename G, typename To>
void adam_direction(const Stream& stream, const AdamRule& rule, const StepState* state, int64_t numel, double lr_scale, const G* g, T* m,
                    T* v, To* direction) {
  elementwise<T>(stream, numel, Direction<G, To>{rule, state, lr_scale, g, m, v, direction}, "adam_direction", g, m, v, direction);
}

template <typename T>
void adamw_table(const Stream& stream, const AdamRule& rule, const AdamwRow<T>* table, int64_t piece_count, const AdamwPiece* pieces,
                 const StepState* state) {
  if (piece_count == 0) return;
  table_kernel<<<static_cast<unsigned>(piece_count), threads, 0, native(stream)>>>(rule, table, pieces, state);
  cuda_check(cudaGetLastError(), "adamw_table");
}

template <typename T>
void squared_norm(const Stream& stream, int64_t numel, const T* x, float* partials, double* sum) {
  const int64_t count = norm_pieces(numel);
  if (count > 0) {
    const auto blocks = static_cast<unsigned>(count);
    if (all_aligned(x))
      squares_kernel<pack_width<T>><<<blocks, threads, 0, native(stream)>>>(numel, x, partials);
    else
      squares_kernel<1><<<blocks, threads, 0, native(stream)>>>(numel, x, partials);
    cuda_check(cudaGetLastError(), "squared_norm");
  }
  sum_kernel<<<1, sum_threads, 0, native(stream)>>>(count, partials, sum);
  cuda_check(cudaGetLastError(), "squared_norm");
}

void judge_step(const Stream& stream, const AdamRule& rule, double clip, int64_t count, const double* squares, int64_t fault_count,
                const float* faults, StepState* state) {
  judge_kernel<<<1, 1, 0, native(stream)>>>(rule, clip, count, squares, fault_count, faults, state);
  cuda_check(cudaGetLastError(), "judge_step");
}

void add_up(const Stream& stream, int64_t count, const double* values, double* sum) {
  add_up_kernel<<<1, 1, 0, native(stream)>>>(count, values, sum);
  cuda_check(cudaGetLastError(), "add_up");
}

void accept_step(const Stream& stream, const AdamRule& rule, double lr, double grad_scale, StepState* state) {
  accept_kernel<<<1, 1, 0, native(stream)>>>(rule, lr, grad_scale, state);
  cuda_check(cudaGetLastError(), "accept_step");
}

void set_learning_rate(const Stream& stream, double lr, StepState* state) {
  learning_rate_kernel<<<1, 1, 0, native(stream)>>>(lr, state);
  cuda_check(cudaGetLastError(), "set_learning_rate");
}

template <typename T>
void moving_average(const Stream& stream, int64_t numel, double decay, const StepState* state, const T* x, T* average) {
  elementwise<T>(stream, numel, Average{decay, state, x, average}, "moving_average", x, average);
}

template void adamw_step(const Stream&, const AdamDims&, float*, const float*, float*, float*);
template void adam_direction(const Stream&, const AdamRule&, const StepState*, int64_t, double, const float*, float*, float*, float*);
template void adam_direction(const Stream&, const AdamRule&, const StepState*, int64_t, double, const float*, float*, float*, bf16*);
template void adam_direction(const Stream&, const AdamRule&, const StepState*, int64_t, double, const bf16*, float*, float*, float*);
template void adam_direction(const Stream&, const AdamRule&, const StepState*, int64_t, double, const bf16*, float*, float*, bf16*);
template void adamw_table(const Stream&, const AdamRule&, const AdamwRow<float>*, int64_t, const AdamwPiece*, const StepState*);
template void squared_norm(const Stream&, int64_t, const float*, float*, double*);
template void squared_norm(const Stream&, int64_t, const bf16*, float*, double*);
template void moving_average(const Stream&, int64_t, double, const StepState*, const float*, float*);

}  // namespace ermoe::cuda
