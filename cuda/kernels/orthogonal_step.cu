// Steps on the Stiefel manifold on the GPU. The tangent step is two products by cublasLt in TF32: what they round is scaled by
// the learning rate, and the retraction sets right what it does to orthonormality. Retractions decide on the device how long
// they go on. Contract: ops/kernels/orthogonal_step.h. Read next: cuda/kernels/stiefel.cuh.
#include "ops/kernels/orthogonal_step.h"

#include "core/kernels/flat.h"
#include "cuda/device/elementwise.cuh"
#include "cuda/device/index.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/kernels/stiefel.cuh"
#include "cuda/runtime/gemm.h"

#include <algorithm>

namespace ermoe::cuda {
namespace {

using Limits = NewtonSchulzLimits<float>;

/// The scratch memory's parts; those of the other methods are null.
struct Scratch {
  float* matrix = nullptr;       // (batch, m, n)
  float* square = nullptr;       // (batch, n, n)
  float* rows = nullptr;         // (batch, 3, n)
  unsigned* arrivals = nullptr;  // (batch)
  double* partials = nullptr;
  FastScratch fast{};         // Newton-Schulz and Cayley
  double* wide = nullptr;     // (batch, n, n); all but Newton-Schulz
  float* tangent = nullptr;   // (batch, m, n); Cayley
  float* products = nullptr;  // (batch, n, n); Cayley

  NewtonSchulzScratch newton_schulz() const { return {square, rows, arrivals}; }
  FactorScratch factor() const { return {wide, arrivals}; }
};

constexpr int sum_threads = 256, sum_blocks = 256;

/// Lays the parts out from `base` on, each on 16 bytes, and returns their size in floats.
int64_t lay_out(const StiefelDims& d, StiefelMethod method, float* base, Scratch& parts) {
  int64_t used = 0;
  const auto take = [&]<typename T>(T*& part, int64_t count) {
    if (base != nullptr) part = reinterpret_cast<T*>(base + used);
    used += (count * static_cast<int64_t>(sizeof(T)) + 15) / 16 * 4;
  };
  const int64_t matrix = d.batch * d.rows * d.cols, square = d.batch * d.cols * d.cols;
  take(parts.matrix, matrix);
  take(parts.square, square);
  take(parts.rows, d.batch * 3 * d.cols);
  take(parts.arrivals, d.batch);
  take(parts.partials, sum_blocks);
  if (method == StiefelMethod::newton_schulz || method == StiefelMethod::cayley) {
    const FastSizes sizes = fast_sizes(d);
    for (bf16** part : {&parts.fast.parts.rounded, &parts.fast.parts.lo, &parts.fast.parts.product}) take(*part, sizes.matrix);
    take(parts.fast.parts.half, sizes.square);
    take(parts.fast.parts.numbers, sizes.numbers);
    take(parts.fast.parts.flags, sizes.flags);
    parts.fast.newton_schulz = parts.newton_schulz();
  }
  if (method != StiefelMethod::newton_schulz) take(parts.wide, square);
  if (method == StiefelMethod::cayley) {
    take(parts.tangent, matrix);
    take(parts.products, square);
  }
  return used;
}

Scratch parts_of(const StiefelDims& d, StiefelMethod method, float* base) {
  Scratch parts;
  lay_out(d, method, base, parts);
  return parts;
}

/// to = factor · x + shift · y.
struct Combine {
  float factor, shift;
  const float *x, *y;
  float* to;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto a = load<V>(x + i), b = load<V>(y + i);
    Pack<float, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) out.v[k] = factor * a.v[k] + shift * b.v[k];
    store(to + i, out);
  }
};

void combine(const Stream& stream, const StiefelDims& d, float factor, const float* x, float shift, const float* y, float* to) {
  elementwise<float>(stream, d.batch * d.rows * d.cols, Combine{factor, shift, x, y, to}, "stiefel_step", x, y, to);
}

constexpr int side = 32, threads_y = 8;

/// s <- ½ (s + sᵀ): a block takes two squares that mirror each other.
__global__ void __launch_bounds__(side* threads_y) symmetrize_kernel(int64_t batch, int64_t n, float* s) {
  if (blockIdx.x < blockIdx.y) return;
  __shared__ float upper[side][side + 1], lower[side][side + 1];
  const int64_t i0 = static_cast<int64_t>(blockIdx.y) * side, j0 = static_cast<int64_t>(blockIdx.x) * side;
  for (int64_t matrix = blockIdx.z; matrix < batch; matrix += gridDim.z) {
    float* const own = s + matrix * n * n;
    for (int y = threadIdx.y; y < side; y += threads_y) {
      const int x = threadIdx.x;
      if (i0 + y < n && j0 + x < n) upper[y][x] = own[(i0 + y) * n + j0 + x];
      if (j0 + y < n && i0 + x < n) lower[y][x] = own[(j0 + y) * n + i0 + x];
    }
    __syncthreads();
    for (int y = threadIdx.y; y < side; y += threads_y) {
      const int x = threadIdx.x;
      if (i0 + y < n && j0 + x < n) own[(i0 + y) * n + j0 + x] = 0.5f * (upper[y][x] + lower[x][y]);
      if (i0 != j0 && j0 + y < n && i0 + x < n) own[(j0 + y) * n + i0 + x] = 0.5f * (lower[y][x] + upper[x][y]);
    }
    __syncthreads();
  }
}

void symmetrize(const Stream& stream, const StiefelDims& d, float* s) {
  const auto squares = static_cast<unsigned>((d.cols + side - 1) / side);
  if (d.batch == 0) return;
  const dim3 grid(squares, squares, static_cast<unsigned>(std::min<int64_t>(d.batch, 65535)));
  symmetrize_kernel<<<grid, dim3(side, threads_y), 0, native(stream)>>>(d.batch, d.cols, s);
  cuda_check(cudaGetLastError(), "stiefel_step");
}

/// stepped = q - lr (a - q sym(qᵀa)).
void tangent_step(const Stream& stream, const StiefelDims& d, float lr, const float* q, const float* a, float* s, float* stepped) {
  const float* no_bias = nullptr;
  gemm(stream, packed_gemm(Trans::yes, Trans::no, d.cols, d.cols, d.rows, d.batch), 1, q, a, 0, s, no_bias, FloatProducts::tf32);
  symmetrize(stream, d, s);
  combine(stream, d, 1, q, -lr, a, stepped);
  gemm(stream, packed_gemm(Trans::no, Trans::no, d.rows, d.cols, d.cols, d.batch), lr, q, s, 1, stepped, no_bias, FloatProducts::tf32);
}

/// m = I + ½ h (s - sᵀ) + h² p.
struct CayleySystem {
  int64_t n;
  double h;
  const float *s, *p;
  double* m;
  template <int V>
  __device__ void run(int64_t at) const {
    const auto [row, j] = divide(at, n);
    const auto [matrix, i] = divide(row, n);
    const float mirrored = s[(matrix * n + j) * n + i];
    m[at] = (i == j ? 1.0 : 0.0) + 0.5 * h * (static_cast<double>(s[at]) - mirrored) + h * h * p[at];
  }
};

/// Wen & Yin's step q <- (I + h W)⁻¹ (I - h W) q, h = lr/2, in the form that needs a system of n equations alone: with qᵀq = I,
/// s = qᵀa and the part g = a - q s of the direction that leaves q's span,
///   q <- 2 (q - h g) m⁻¹ - q,  m = I + ½ h (s - sᵀ) + h² gᵀg.
/// m's symmetric part is at least I, so the system is never singular.
void cayley_step(const Stream& stream, const StiefelDims& d, double lr, float* q, const float* a, bf16* twin, const Scratch& scratch) {
  const int64_t m = d.rows, n = d.cols, squares = d.batch * n * n;
  const double h = lr / 2;
  gemm(stream, packed_gemm(Trans::yes, Trans::no, n, n, m, d.batch), 1, q, a, 0, scratch.square);
  convert(stream, d.batch * m * n, a, scratch.tangent, Accumulate::overwrite);
  gemm(stream, packed_gemm(Trans::no, Trans::no, m, n, n, d.batch), -1, q, scratch.square, 1, scratch.tangent);
  gemm(stream, packed_gemm(Trans::yes, Trans::no, n, n, m, d.batch), 1, scratch.tangent, scratch.tangent, 0, scratch.products);
  const CayleySystem system{n, h, scratch.square, scratch.products, scratch.wide};
  const auto blocks = static_cast<unsigned>((squares + elementwise_threads - 1) / elementwise_threads);
  if (squares > 0) elementwise_kernel<1><<<blocks, elementwise_threads, 0, native(stream)>>>(squares, system);
  cuda_check(cudaGetLastError(), "stiefel_step");
  combine(stream, d, 1, q, static_cast<float>(-h), scratch.tangent, scratch.matrix);
  solve_rows(stream, d, scratch.matrix, scratch.factor());
  combine(stream, d, 2, scratch.matrix, -1, q, scratch.matrix);
  // Exact but for rounding, which a chain of steps would add up.
  newton_schulz(stream, d, Limits::step_iterations, scratch.matrix, nullptr, q, twin, scratch.newton_schulz());
}

/// q by its factorisation, and its twin where there is one.
void orthonormalize(const Stream& stream, const StiefelDims& d, float* q, bf16* twin, const Scratch& scratch) {
  orthonormalize_columns(stream, d, q, scratch.factor());
  if (twin != nullptr) convert(stream, d.batch * d.rows * d.cols, static_cast<const float*>(q), twin, Accumulate::overwrite);
}

/// gram <- I - gram, and a block's part of the sum of squares of that.
__global__ void __launch_bounds__(sum_threads) penalty_kernel(int64_t batch, int64_t n, float* gram, double* partials) {
  double sum = 0;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * sum_threads + threadIdx.x; at < batch * n * n; at += sum_blocks * sum_threads) {
    const auto [row, j] = divide(at, n);
    const float value = (divide(row, n).column == j ? 1.0f : 0.0f) - gram[at];
    gram[at] = value;
    sum += static_cast<double>(value) * value;
  }
  sum = block_sum<sum_threads>(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(sum_threads) penalty_sum_kernel(double lambda, const double* partials, double* penalty) {
  static_assert(sum_threads == sum_blocks);
  const double sum = block_sum<sum_threads>(partials[threadIdx.x]);
  if (threadIdx.x == 0) *penalty += lambda * sum;
}

}  // namespace

int64_t stiefel_scratch(const StiefelDims& dims, StiefelMethod method) {
  Scratch parts;
  return lay_out(dims, method, nullptr, parts);
}

template <>
void stiefel_step(const Stream& stream, const StiefelDims& d, StiefelMethod method, double lr, float* q, const float* direction, bf16* twin,
                  float* scratch) {
  const Scratch parts = parts_of(d, method, scratch);
  const int64_t count = d.batch * d.rows * d.cols;
  if (method == StiefelMethod::cayley) return cayley_step(stream, d, lr, q, direction, twin, parts);
  if (method == StiefelMethod::newton_schulz && fast_step_fits(d, q, direction, twin)) {
    auto* const narrow = reinterpret_cast<bf16*>(parts.matrix);
    convert(stream, count, direction, narrow, Accumulate::overwrite);
    return fast_step(stream, d, static_cast<float>(lr), q, narrow, twin, parts.matrix, parts.square, parts.fast);
  }
  tangent_step(stream, d, static_cast<float>(lr), q, direction, parts.square, parts.matrix);
  if (method == StiefelMethod::newton_schulz)
    return newton_schulz(stream, d, Limits::step_iterations, parts.matrix, nullptr, q, twin, parts.newton_schulz());
  convert(stream, count, static_cast<const float*>(parts.matrix), q, Accumulate::overwrite);
  orthonormalize(stream, d, q, twin, parts);
}

bool takes_bf16_direction(const StiefelDims& dims, StiefelMethod method, const float* q, const bf16* direction, const bf16* twin) {
  return method == StiefelMethod::newton_schulz && fast_step_fits(dims, q, direction, twin);
}

void stiefel_step(const Stream& stream, const StiefelDims& d, double lr, float* q, bf16* direction, bf16* twin, float* scratch) {
  const Scratch parts = parts_of(d, StiefelMethod::newton_schulz, scratch);
  fast_step(stream, d, static_cast<float>(lr), q, direction, twin, parts.matrix, parts.square, parts.fast);
}

template <>
void retract(const Stream& stream, const StiefelDims& d, StiefelMethod method, float* q, bf16* twin, float* scratch) {
  const Scratch parts = parts_of(d, method, scratch);
  switch (method) {
    case StiefelMethod::gram_schmidt:
    case StiefelMethod::cholesky_qr: return orthonormalize(stream, d, q, twin, parts);
    case StiefelMethod::newton_schulz:
    case StiefelMethod::cayley:
      if (fast_step_fits(d, q, nullptr, twin)) return fast_retract(stream, d, q, twin, parts.matrix, parts.fast);
      return newton_schulz(stream, d, Limits::step_iterations, q, parts.matrix, q, twin, parts.newton_schulz());
  }
}

template <>
void polar_project(const Stream& stream, const StiefelDims& d, float* q, float* scratch) {
  const Scratch parts = parts_of(d, StiefelMethod::newton_schulz, scratch);
  newton_schulz(stream, d, Limits::polar_iterations, q, parts.matrix, q, nullptr, parts.newton_schulz());
}

template <>
void orthogonality_residual(const Stream& stream, const StiefelDims& d, const float* q, double* worst) {
  largest_residual(stream, d, q, worst);
}

template <>
void penalty_gradient(const Stream& stream, const StiefelDims& d, const float* q, double lambda, float* dq, double* penalty,
                      float* scratch) {
  const Scratch parts = parts_of(d, StiefelMethod::newton_schulz, scratch);
  gemm(stream, packed_gemm(Trans::yes, Trans::no, d.cols, d.cols, d.rows, d.batch), 1, q, q, 0, parts.square);
  penalty_kernel<<<sum_blocks, sum_threads, 0, native(stream)>>>(d.batch, d.cols, parts.square, parts.partials);
  cuda_check(cudaGetLastError(), "penalty_gradient");
  gemm(stream, packed_gemm(Trans::no, Trans::no, d.rows, d.cols, d.cols, d.batch), static_cast<float>(-4 * lambda), q, parts.square, 1, dq);
  penalty_sum_kernel<<<1, sum_threads, 0, native(stream)>>>(lambda, parts.partials, penalty);
  cuda_check(cudaGetLastError(), "penalty_gradient");
}

}  // namespace ermoe::cuda
