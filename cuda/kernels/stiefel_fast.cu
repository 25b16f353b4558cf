// The orthogonal step as training takes it: from a matrix that is orthonormal but for rounding, by a step so short that one
// update brings it back. Four products of 2·m·n² operations on the tensor cores: qᵀa, q·sym, the residual (three products
// over half of its tiles) and the update; beside them some 50 bytes an element pass through memory. What is left is
// bounded on the device, and where the bound is too large the iteration of newton_schulz.cu goes on from here.
//
// Precision: only the residual R = I - qᵀq must be as exact as float. q = hi + lo + rest, hi and lo in bf16, and
// hi·hi + hi·lo + lo·hi is all of qᵀq that float holds; lo·lo counts on the diagonal alone, where it adds up. Tensor cores
// cut off what their float sums cannot hold, so sums are moved to registers of our own every 128 rows.
//
// The update: with X = ½R + C, C diagonal, (I + X)(I - R)(I + X) = I - ¾R² + 2C + terms of third order. Here C holds the
// diagonal's own series, C_ii = (1 - R_ii)^-½ - 1 - ½R_ii, and ⅜ Σ_{j≠i} R_ij², and column j of ½R is scaled by
// 1 + ³⁄₂R_jj. What remains of ¾R² are its elements off the diagonal: ¾|R_ij| |R_ii - R_jj| and ¾ Σ_{k≠i,j} R_ik R_kj, which
// is at most ¾ of the longest row's square.
#include "core/kernels/flat.h"
#include "cuda/device/elementwise.cuh"
#include "cuda/device/index.cuh"
#include "cuda/device/mma.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/kernels/stiefel.cuh"
#include "cuda/runtime/gemm.h"

#include <algorithm>

namespace ermoe::cuda {
namespace {

/// halves = bf16(½ (s + sᵀ)), by squares of 32.
constexpr int side = 32, side_threads = 8;
__global__ void __launch_bounds__(side* side_threads) symmetrize_kernel(int64_t batch, int64_t n, const float* s, bf16* to) {
  __shared__ float mirrored[side][side + 1];
  const int64_t i0 = static_cast<int64_t>(blockIdx.y) * side, j0 = static_cast<int64_t>(blockIdx.x) * side;
  for (int64_t matrix = blockIdx.z; matrix < batch; matrix += gridDim.z) {
    const float* const own = s + matrix * n * n;
    for (int y = threadIdx.y; y < side; y += side_threads)
      if (j0 + y < n && i0 + threadIdx.x < n) mirrored[y][threadIdx.x] = own[(j0 + y) * n + i0 + threadIdx.x];
    __syncthreads();
    for (int y = threadIdx.y; y < side; y += side_threads) {
      const int64_t at = (i0 + y) * n + j0 + threadIdx.x;
      if (i0 + y < n && j0 + threadIdx.x < n) to[matrix * n * n + at] = narrow<bf16>(0.5f * (own[at] + mirrored[threadIdx.x][y]));
    }
    __syncthreads();
  }
}

/// stepped = q - lr (a - p), and its two leading parts.
struct StepAndSplit {
  float lr;
  const float *q, *a;
  const bf16* p;
  float* stepped;
  bf16 *hi, *lo;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto qs = load<V>(q + i), as = load<V>(a + i);
    const auto ps = load<V>(p + i);
    Pack<float, V> out;
    Pack<bf16, V> high, low;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      out.v[k] = qs.v[k] - lr * (as.v[k] - widen(ps.v[k]));
      high.v[k] = narrow<bf16>(out.v[k]);
      low.v[k] = narrow<bf16>(out.v[k] - widen(high.v[k]));
    }
    store(stepped + i, out);
    store(hi + i, high);
    store(lo + i, low);
  }
};

/// The two leading parts of what a retraction finds.
struct Split {
  const float* q;
  bf16 *hi, *lo;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto qs = load<V>(q + i);
    Pack<bf16, V> high, low;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      high.v[k] = narrow<bf16>(qs.v[k]);
      low.v[k] = narrow<bf16>(qs.v[k] - widen(high.v[k]));
    }
    store(hi + i, high);
    store(lo + i, low);
  }
};

constexpr int tile_i = 128, tile_j = 64, depth = 32, stages = 3, flush = 4, threads = 256;
constexpr int a_bytes = depth * tile_i * 2, b_bytes = depth * tile_j * 2, stage_bytes = 2 * (a_bytes + b_bytes);
enum Part { squares, sums, largest, parts };  // of a row's elements off the diagonal

struct Residual {
  int64_t m = 0, n = 0;                            // n a multiple of 8
  const bf16 *hi = nullptr, *lo = nullptr;         // (batch, m, n)
  bf16* half = nullptr;                            // (batch, n, n): ½R without its diagonal
  float *diagonal = nullptr, *partials = nullptr;  // (batch, n), (batch, parts, slots, n)

  __host__ __device__ int64_t row_tiles() const { return (n + tile_i - 1) / tile_i; }
  __host__ __device__ int64_t column_tiles() const { return (n + tile_j - 1) / tile_j; }
  /// A tile leaves the sums of its rows in slot j, those of its columns in slot column_tiles + i.
  __host__ __device__ int64_t slots() const { return row_tiles() + column_tiles(); }
};

/// Byte of the 16 that hold columns c … c + 7 of row k in an operand's `Width` columns; eight rows of them meet no bank twice.
template <int Width>
__device__ __forceinline__ uint32_t place(int k, int c) {
  return static_cast<uint32_t>(k * Width * 2 + ((c / 8) ^ (k & 7)) * 16);
}

template <int Width>
__device__ __forceinline__ void copy_rows(uint32_t to, const bf16* from, int64_t n, int64_t rows, int64_t columns) {
#pragma unroll
  for (int l = 0; l < depth * Width / 8 / threads; ++l) {
    const int at = static_cast<int>(threadIdx.x) + l * threads, k = at / (Width / 8), c = at % (Width / 8) * 8;
    const bool valid = k < rows && c < columns;
    copy_async_16(to + place<Width>(k, c), valid ? from + k * n + c : from, valid);
  }
}

/// One operand's fragments for 16 rows k and 16 columns: of A where `AsA`, else of B for two groups of 8 columns.
template <int Width, bool AsA>
__device__ __forceinline__ void load_fragments(uint32_t (&to)[4], uint32_t from, int k, int c) {
  const int lane = threadIdx.x % warp_size, matrix = lane / 8, row = lane % 8;
  const int down = AsA ? matrix / 2 : matrix % 2, across = AsA ? matrix % 2 : matrix / 2;
  load_matrices_transposed(to, from + place<Width>(k + down * 8 + row, c + across * 8));
}

struct Tile {
  int64_t i0, j0;
  int warp_i, warp_j;     // 4 x 2 warps of 32 x 32
  float sum[2][4][4];     // by fragments of 16 rows and 8 columns
  float recent[2][4][4];  // in the tensor cores

  __device__ int64_t row(int f, int c) const { return i0 + warp_i * 32 + f * 16 + threadIdx.x % warp_size / 4 + (c / 2) * 8; }
  __device__ int64_t column(int g, int c) const { return j0 + warp_j * 32 + g * 8 + threadIdx.x % 4 * 2 + c % 2; }

  template <typename Fn>
  __device__ __forceinline__ void each(Fn&& fn) {
#pragma unroll
    for (int f = 0; f < 2; ++f)
#pragma unroll
      for (int g = 0; g < 4; ++g)
#pragma unroll
        for (int c = 0; c < 4; ++c) fn(f, g, c);
  }
  __device__ __forceinline__ void move_recent() {
    each([&](int f, int g, int c) {
      sum[f][g][c] += recent[f][g][c];
      recent[f][g][c] = 0;
    });
  }
  __device__ __forceinline__ void multiply(const uint32_t (&a)[2][4], const uint32_t (&b)[2][4]) {
#pragma unroll
    for (int f = 0; f < 2; ++f)
#pragma unroll
      for (int g = 0; g < 4; ++g) multiply_16x8x16(recent[f][g], a[f], b[g / 2][g % 2 * 2], b[g / 2][g % 2 * 2 + 1]);
  }
};

/// tile.sum = Σ_k q(k, i) q(k, j).
__device__ __forceinline__ void gram_tile(const Residual& work, const bf16* hi, const bf16* lo, uint32_t shared, Tile& tile) {
  const int64_t m = work.m, n = work.n, steps = (m + depth - 1) / depth;
  const bool diagonal = tile.j0 < tile.i0 + tile_i && tile.i0 < tile.j0 + tile_j;
  const auto fetch = [&](int64_t step) {
    const uint32_t to = shared + static_cast<uint32_t>(step % stages) * stage_bytes;
    const int64_t k0 = step * depth, a = k0 * n + tile.i0, b = k0 * n + tile.j0;
    if (step < steps) {
      copy_rows<tile_i>(to, hi + a, n, m - k0, n - tile.i0);
      copy_rows<tile_i>(to + a_bytes, lo + a, n, m - k0, n - tile.i0);
      copy_rows<tile_j>(to + 2 * a_bytes, hi + b, n, m - k0, n - tile.j0);
      copy_rows<tile_j>(to + 2 * a_bytes + b_bytes, lo + b, n, m - k0, n - tile.j0);
    }
    commit_copies();
  };
  tile.each([&](int f, int g, int c) { tile.sum[f][g][c] = tile.recent[f][g][c] = 0; });
  for (int step = 0; step < stages - 1; ++step) fetch(step);
  for (int64_t step = 0; step < steps; ++step) {
    wait_copies<stages - 2>();
    __syncthreads();  // this stage has come, and the one before it has been read by all
    fetch(step + stages - 1);
    const uint32_t from = shared + static_cast<uint32_t>(step % stages) * stage_bytes;
#pragma unroll
    for (int k = 0; k < depth; k += 16) {
      uint32_t a_hi[2][4], a_lo[2][4], b_hi[2][4], b_lo[2][4];
#pragma unroll
      for (int f = 0; f < 2; ++f) {
        load_fragments<tile_i, true>(a_hi[f], from, k, tile.warp_i * 32 + f * 16);
        load_fragments<tile_i, true>(a_lo[f], from + a_bytes, k, tile.warp_i * 32 + f * 16);
        load_fragments<tile_j, false>(b_hi[f], from + 2 * a_bytes, k, tile.warp_j * 32 + f * 16);
        load_fragments<tile_j, false>(b_lo[f], from + 2 * a_bytes + b_bytes, k, tile.warp_j * 32 + f * 16);
      }
      tile.multiply(a_hi, b_hi);
      tile.multiply(a_hi, b_lo);
      tile.multiply(a_lo, b_hi);
      if (diagonal) tile.multiply(a_lo, b_lo);
    }
    if (step % flush == flush - 1) tile.move_recent();
  }
  tile.move_recent();
  wait_copies<0>();
  __syncthreads();  // the stages' memory is free
}

__device__ __forceinline__ float merge(int part, float a, float b) { return part == largest ? fmaxf(a, b) : a + b; }

/// Sums, by `part`, of the tile's rows and columns; `scratch` holds 2 · 128 + 4 · 64 floats.
__device__ __forceinline__ void reduce_tile(const Residual& work, const Tile& tile, const float (&value)[2][4][4], int part,
                                            float* partials, float* scratch) {
  float *const rows = scratch, *const columns = scratch + 2 * tile_i;
  const int lane = threadIdx.x % warp_size;
#pragma unroll
  for (int f = 0; f < 2; ++f)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float own = 0;
#pragma unroll
      for (int g = 0; g < 4; ++g) own = merge(part, own, merge(part, value[f][g][2 * h], value[f][g][2 * h + 1]));
      for (int distance = 1; distance < 4; distance *= 2) own = merge(part, own, __shfl_xor_sync(all_lanes, own, distance));
      if (lane % 4 == 0) rows[tile.warp_j * tile_i + tile.warp_i * 32 + f * 16 + h * 8 + lane / 4] = own;
    }
#pragma unroll
  for (int g = 0; g < 4; ++g)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float own = merge(part, merge(part, value[0][g][h], value[0][g][h + 2]), merge(part, value[1][g][h], value[1][g][h + 2]));
      for (int distance = 4; distance < warp_size; distance *= 2) own = merge(part, own, __shfl_xor_sync(all_lanes, own, distance));
      if (lane < 4) columns[tile.warp_i * tile_j + tile.warp_j * 32 + g * 8 + lane * 2 + h] = own;
    }
  __syncthreads();
  const int t = threadIdx.x;
  if (t < tile_i && tile.i0 + t < work.n) partials[tile.j0 / tile_j * work.n + tile.i0 + t] = merge(part, rows[t], rows[tile_i + t]);
  if (t < tile_j && tile.j0 + t < work.n) {
    float own = columns[t];
#pragma unroll
    for (int w = 1; w < 4; ++w) own = merge(part, own, columns[w * tile_j + t]);
    partials[(work.column_tiles() + tile.i0 / tile_i) * work.n + tile.j0 + t] = own;
  }
  __syncthreads();
}

/// The tiles that reach the upper triangle; what lies in them below it belongs to others.
__global__ void __launch_bounds__(threads, 2) residual_kernel(Residual work) {
  extern __shared__ __align__(16) unsigned char memory[];
  const int warp = threadIdx.x / warp_size;
  const int64_t n = work.n, matrix = blockIdx.y;
  Tile tile{.i0 = blockIdx.x / work.column_tiles() * tile_i,
            .j0 = blockIdx.x % work.column_tiles() * tile_j,
            .warp_i = warp / 2,
            .warp_j = warp % 2};
  if (tile.j0 + tile_j <= tile.i0) return;
  gram_tile(work, work.hi + matrix * work.m * n, work.lo + matrix * work.m * n, shared_address(memory), tile);
  bf16* const half = work.half + matrix * n * n;
  tile.each([&](int f, int g, int c) {
    const int64_t i = tile.row(f, c), j = tile.column(g, c);
    float& value = tile.sum[f][g][c];
    if (i < n && i == j) {
      work.diagonal[matrix * n + i] = 1 - value;
      half[i * n + i] = narrow<bf16>(0.0f);
    }
    if (i >= n || j >= n || j <= i) {
      value = 0;
      return;
    }
    half[i * n + j] = half[j * n + i] = narrow<bf16>(-0.5f * value);
  });
  float* const partials = work.partials + matrix * parts * work.slots() * n;
  auto* const scratch = reinterpret_cast<float*>(memory);
  float weighed[2][4][4];
  tile.each([&](int f, int g, int c) { weighed[f][g][c] = tile.sum[f][g][c] * tile.sum[f][g][c]; });
  reduce_tile(work, tile, weighed, squares, partials, scratch);
  tile.each([&](int f, int g, int c) { weighed[f][g][c] = fabsf(tile.sum[f][g][c]); });
  reduce_tile(work, tile, weighed, sums, partials + work.slots() * n, scratch);
  reduce_tile(work, tile, weighed, largest, partials + 2 * work.slots() * n, scratch);
}

constexpr int judge_threads = 512;
constexpr float enough = 3e-6f;  // of the bound: with what rounding adds, within the promise

struct Verdict {
  float *scale, *own;        // (batch, n): factors of the update's columns and of the stepped matrix's
  unsigned *updates, *done;  // (batch): whether the update is to be applied, and whether it suffices
};

/// Sums over the tiles that row i meets, in their order.
__device__ float row_total(const Residual& work, const float* partials, int part, int64_t i) {
  const float* const from = partials + part * work.slots() * work.n + i;
  float total = 0;
  for (int64_t j = i / tile_i * (tile_i / tile_j); j < work.column_tiles(); ++j) total = merge(part, total, from[j * work.n]);
  for (int64_t t = 0; t <= i / tile_j / (tile_i / tile_j); ++t) total = merge(part, total, from[(work.column_tiles() + t) * work.n]);
  return total;
}

/// A block a matrix: norms of its residual, from them the update's coefficients and whether one update is enough.
__global__ void __launch_bounds__(judge_threads) judge_kernel(Residual work, Verdict verdict) {
  const int64_t n = work.n, matrix = blockIdx.x;
  const float *const partials = work.partials + matrix * parts * work.slots() * n, *const diagonal = work.diagonal + matrix * n;
  float off_row = 0, row = 0, row_sum = 0, off = 0, low = INFINITY, high = -INFINITY, total = 0;
  bool broken = false;
  for (int64_t i = threadIdx.x; i < n; i += judge_threads) {
    const float square = row_total(work, partials, squares, i), sum = row_total(work, partials, sums, i), d = diagonal[i];
    broken |= !isfinite(square) || !isfinite(sum) || !isfinite(d);
    off_row = fmaxf(off_row, square);
    row = fmaxf(row, square + d * d);
    row_sum = fmaxf(row_sum, sum + fabsf(d));
    off = fmaxf(off, row_total(work, partials, largest, i));
    low = fminf(low, d);
    high = fmaxf(high, d);
    total += square + d * d;
    verdict.own[matrix * n + i] = rsqrtf(1 - d) + 0.375f * square;
    verdict.scale[matrix * n + i] = 1 + 1.5f * d;
  }
  broken = __syncthreads_or(broken);
  off_row = block_max<judge_threads>(off_row);
  row = block_max<judge_threads>(row);
  row_sum = block_max<judge_threads>(row_sum);
  off = block_max<judge_threads>(off);
  high = block_max<judge_threads>(high);
  low = -block_max<judge_threads>(-low);
  total = block_sum<judge_threads>(total);
  if (threadIdx.x > 0) return;
  const float spectral = fminf(sqrtf(total), row_sum);
  const float bound = 0.75f * (off_row + 2 * off * (high - low)) + 0.25f * row * spectral + off / 512;  // the last: half's rounding
  const bool small = !broken && spectral < 0.5f;
  verdict.updates[matrix] = small;
  verdict.done[matrix] = small && bound <= enough;
}

/// q = stepped diag(own) + u diag(scale), or stepped where there is no update.
struct Apply {
  int64_t n, count;
  const float* stepped;
  const bf16* u;
  Verdict verdict;
  float* q;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto [row, column] = divide(i, n);
    const int64_t matrix = divide(i, count).row;
    auto out = load<V>(stepped + i);
    if (verdict.updates[matrix] != 0) {
      const auto us = load<V>(u + i);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const int64_t at = matrix * n + column + k;
        out.v[k] = out.v[k] * verdict.own[at] + widen(us.v[k]) * verdict.scale[at];
      }
    }
    store(q + i, out);
  }
};

int64_t count_of(const StiefelDims& d) { return d.batch * d.rows * d.cols; }

void symmetrize(const Stream& stream, const StiefelDims& d, const float* s, bf16* to) {
  const auto squares_of = static_cast<unsigned>((d.cols + side - 1) / side);
  const dim3 grid(squares_of, squares_of, static_cast<unsigned>(d.batch));
  symmetrize_kernel<<<grid, dim3(side, side_threads), 0, native(stream)>>>(d.batch, d.cols, s, to);
  cuda_check(cudaGetLastError(), "stiefel_step");
}

/// From `stepped`, of which hi and lo are the leading parts, to q, which may be the same.
void come_back(const Stream& stream, const StiefelDims& d, float* stepped, float* spare, float* q, const FastScratch& scratch) {
  const auto [hi, lo, product, half, numbers, flags] = scratch.parts;
  const int64_t square = d.batch * d.cols;
  const Residual residual{
      .m = d.rows, .n = d.cols, .hi = hi, .lo = lo, .half = half, .diagonal = numbers, .partials = numbers + 3 * square};
  const Verdict verdict{.scale = numbers + square, .own = numbers + 2 * square, .updates = flags, .done = flags + d.batch};
  const dim3 grid(static_cast<unsigned>(residual.row_tiles() * residual.column_tiles()), static_cast<unsigned>(d.batch));
  constexpr int bytes = stages * stage_bytes;
  cuda_check(cudaFuncSetAttribute(residual_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "cudaFuncSetAttribute");
  residual_kernel<<<grid, threads, bytes, native(stream)>>>(residual);
  cuda_check(cudaGetLastError(), "stiefel_step");
  judge_kernel<<<static_cast<unsigned>(d.batch), judge_threads, 0, native(stream)>>>(residual, verdict);
  cuda_check(cudaGetLastError(), "stiefel_step");
  gemm(stream, packed_gemm(Trans::no, Trans::no, d.rows, d.cols, d.cols, d.batch), 1, hi, half, 0, product);
  const Apply apply{.n = d.cols, .count = d.rows * d.cols, .stepped = stepped, .u = product, .verdict = verdict, .q = q};
  elementwise<bf16>(stream, count_of(d), apply, "stiefel_step", stepped, q);
  newton_schulz(stream, d, NewtonSchulzLimits<float>::step_iterations, q, spare, q, scratch.newton_schulz, verdict.done);
}

}  // namespace

bool fast_step_fits(const StiefelDims& d, const float* q, const float* a) {
  return d.cols % 8 == 0 && d.cols >= tile_j && d.batch > 0 && d.batch <= 65535 && all_aligned(q, a);
}

FastSizes fast_sizes(const StiefelDims& d) {
  const Residual residual{.m = d.rows, .n = d.cols};
  return {.matrix = count_of(d),
          .square = d.batch * d.cols * d.cols,
          .numbers = d.batch * d.cols * (3 + parts * residual.slots()),
          .flags = 2 * d.batch};
}

void fast_step(const Stream& stream, const StiefelDims& d, float lr, float* q, const float* a, float* stepped, float* square,
               const FastScratch& scratch) {
  const auto [hi, lo, product, half, numbers, flags] = scratch.parts;
  const int64_t m = d.rows, n = d.cols, count = count_of(d);
  convert(stream, count, static_cast<const float*>(q), hi, Accumulate::overwrite);
  convert(stream, count, a, lo, Accumulate::overwrite);
  gemm(stream, packed_gemm(Trans::yes, Trans::no, n, n, m, d.batch), 1, hi, lo, 0, square);
  symmetrize(stream, d, square, half);
  gemm(stream, packed_gemm(Trans::no, Trans::no, m, n, n, d.batch), 1, hi, half, 0, product);
  elementwise<bf16>(stream, count, StepAndSplit{lr, q, a, product, stepped, hi, lo}, "stiefel_step", q, a);
  come_back(stream, d, stepped, stepped, q, scratch);
}

void fast_retract(const Stream& stream, const StiefelDims& d, float* q, float* spare, const FastScratch& scratch) {
  elementwise<bf16>(stream, count_of(d), Split{q, scratch.parts.hi, scratch.parts.lo}, "retract", q);
  come_back(stream, d, q, spare, q, scratch);
}

}  // namespace ermoe::cuda
