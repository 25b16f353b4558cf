// The Newton-Schulz iteration on the GPU as one launch: a group of blocks takes a matrix, and whether it goes on is decided
// there, from norms that each block adds up in the same order. ops/cpu/orthogonal_step.cpp derives the bound that saves the
// last residual. Two products of 2·m·n² operations an iteration (the residual by its upper triangle: one), in float.
#include "cuda/device/group.cuh"
#include "cuda/device/pack.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/device/tile_product.cuh"
#include "cuda/kernels/stiefel.cuh"

namespace ermoe::cuda {
namespace {

using Limits = NewtonSchulzLimits<float>;
constexpr int threads = TileProduct::threads, side = TileProduct::side;

struct Work {
  int64_t batch, m, n;
  int iterations;
  float *start, *spare, *q;  // (batch, m, n)
  bf16* twin;                // (batch, m, n) or null
  NewtonSchulzScratch scratch;
  const unsigned* done;  // (batch) or null
};

/// What is known of a symmetric residual R; all NaN where a number of it is not finite.
struct Norms {
  float largest;   // max |R_ij|
  float row;       // its longest row
  float spectral;  // at least ‖R‖₂
};

__device__ int64_t tiles_of(int64_t n) { return (n + side - 1) / side; }

/// r = I - qᵀq: the upper triangle's tiles, each mirrored.
__device__ void residual(const BlockGroup& group, int64_t m, int64_t n, const float* q, float* r, TileProduct::Shared& shared) {
  const int64_t tiles = tiles_of(n);
  for (int64_t t = group.member; t < tiles * tiles; t += group.members) {
    const int64_t i0 = t / tiles * side, j0 = t % tiles * side;
    if (j0 < i0) continue;
    TileProduct product;
    product.run({q + i0, n, 1, n - i0}, {q + j0, n, 1, n - j0}, m, shared);
#pragma unroll
    for (int a = 0; a < 8; ++a)
#pragma unroll
      for (int b = 0; b < 8; ++b) {
        const int64_t i = i0 + TileProduct::index(TileProduct::place_of_row(), a);
        const int64_t j = j0 + TileProduct::index(TileProduct::place_of_column(), b);
        if (i >= n || j >= n || (i0 == j0 && j < i)) continue;
        const float value = (i == j ? 1.0f : 0.0f) - product.sum[a][b];
        r[i * n + j] = value;
        r[j * n + i] = value;
      }
  }
}

/// to = from + ½ from r.
__device__ void update(const BlockGroup& group, int64_t m, int64_t n, const float* from, const float* r, float* to,
                       TileProduct::Shared& shared) {
  const int64_t across = tiles_of(n), tiles = tiles_of(m) * across;
  for (int64_t t = group.member; t < tiles; t += group.members) {
    const int64_t i0 = t / across * side, j0 = t % across * side;
    TileProduct product;
    product.run({from + i0 * n, 1, n, m - i0}, {r + j0, n, 1, n - j0}, n, shared);
#pragma unroll
    for (int a = 0; a < 8; ++a)
#pragma unroll
      for (int b = 0; b < 8; ++b) {
        const int64_t i = i0 + TileProduct::index(TileProduct::place_of_row(), a);
        const int64_t j = j0 + TileProduct::index(TileProduct::place_of_column(), b);
        if (i < m && j < n) to[i * n + j] = from[i * n + j] + 0.5f * product.sum[a][b];
      }
  }
}

/// Largest element, sum of magnitudes and sum of squares of each row, a warp a row.
__device__ void row_norms(const BlockGroup& group, int64_t n, const float* r, float* rows) {
  const int lane = threadIdx.x % warp_size;
  const int64_t warp = group.member * (threads / warp_size) + threadIdx.x / warp_size, warps = group.members * (threads / warp_size);
  for (int64_t i = warp; i < n; i += warps) {
    float largest = 0, sum = 0, squares = 0;
    for (int64_t j = lane; j < n; j += warp_size) {
      const float value = fabsf(r[i * n + j]);
      largest = fmaxf(largest, value);
      sum += value;
      squares += value * value;
    }
    largest = warp_max(largest);
    sum = warp_sum(sum);
    squares = warp_sum(squares);
    if (lane > 0) continue;
    rows[i] = largest;
    rows[n + i] = sum;
    rows[2 * n + i] = squares;
  }
}

__device__ Norms norms_of(int64_t n, const float* rows) {
  float largest = 0, sum = 0, squares = 0, total = 0;
  bool broken = false;
  for (int64_t i = threadIdx.x; i < n; i += threads) {
    largest = fmaxf(largest, rows[i]);
    sum = fmaxf(sum, rows[n + i]);
    squares = fmaxf(squares, rows[2 * n + i]);
    total += rows[2 * n + i];
    broken |= !isfinite(rows[n + i]) || !isfinite(rows[2 * n + i]);
  }
  if (__syncthreads_or(broken)) return {NAN, NAN, NAN};
  largest = block_max<threads>(largest);
  sum = block_max<threads>(sum);
  squares = block_max<threads>(squares);
  total = block_sum<threads>(total);
  return {largest, sqrtf(squares), fminf(sqrtf(total), sum)};
}

/// This member's share of [0, count).
template <typename Fn>
__device__ void for_share(const BlockGroup& group, int64_t count, Fn&& fn) {
  for (int64_t i = static_cast<int64_t>(group.member) * threads + threadIdx.x; i < count;
       i += static_cast<int64_t>(group.members) * threads)
    fn(i);
}

__global__ void __launch_bounds__(threads, 1) newton_schulz_kernel(GroupGrid grid, Work work) {
  __shared__ TileProduct::Shared shared;
  BlockGroup group = grid.own();
  const int64_t m = work.m, n = work.n, count = m * n;
  for (int64_t matrix = grid.group(); matrix < work.batch; matrix += grid.groups) {
    if (work.done != nullptr && work.done[matrix] != 0) continue;
    float *from = work.start + matrix * count, *to = (work.start == work.q ? work.spare : work.q) + matrix * count;
    float *const q = work.q + matrix * count, *const r = work.scratch.residual + matrix * n * n;
    float* const rows = work.scratch.rows + matrix * 3 * n;
    bool scaled = false;
    int iterations = work.iterations;
    for (int i = 0; i < iterations; ++i) {
      residual(group, m, n, from, r, shared);
      group.sync();
      row_norms(group, n, r, rows);
      group.sync();
      const Norms norms = norms_of(n, rows);
      if (!(norms.largest > static_cast<float>(Limits::tolerance))) break;  // or a NaN
      if (norms.spectral >= 0.5f) iterations = Limits::polar_iterations;
      if (norms.spectral >= 1 && !scaled) {
        const float factor = rsqrtf(1 + norms.spectral);
        for_share(group, count, [&](int64_t k) { from[k] *= factor; });
        scaled = true;
        group.sync();
        continue;
      }
      update(group, m, n, from, r, to, shared);
      group.sync();
      float* const updated = to;
      to = from;
      from = updated;
      const float bound = norms.row * norms.row * (0.75f + 0.25f * norms.spectral);
      if (bound <= static_cast<float>(Limits::tolerance - Limits::rounding)) break;
    }
    if (from != q) for_share(group, count, [&](int64_t k) { q[k] = from[k]; });
    if (work.twin != nullptr) for_share(group, count, [&](int64_t k) { work.twin[matrix * count + k] = narrow<bf16>(from[k]); });
  }
}

}  // namespace

void newton_schulz(const Stream& stream, const StiefelDims& dims, int iterations, float* start, float* spare, float* q, bf16* twin,
                   const NewtonSchulzScratch& scratch, const unsigned* done) {
  const auto tiles = [](int64_t size) { return (size + side - 1) / side; };
  const Work work{.batch = dims.batch,
                  .m = dims.rows,
                  .n = dims.cols,
                  .iterations = iterations,
                  .start = start,
                  .spare = spare,
                  .q = q,
                  .twin = twin,
                  .scratch = scratch,
                  .done = done};
  launch_groups(stream, newton_schulz_kernel, threads, dims.batch, tiles(dims.rows) * tiles(dims.cols), scratch.arrivals, "newton_schulz",
                work);
}

}  // namespace ermoe::cuda
