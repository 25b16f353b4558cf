// The orthogonal step as training takes it: from a matrix that is orthonormal but for rounding, by a step so short that one
// update brings it back. Four products of 2·m·n² operations on the tensor cores: qᵀa, q·sym, the residual (three products
// over half of its tiles, stiefel_residual.h) and the update. What is left is bounded on the device, and where the bound is too
// large the iteration of newton_schulz.cu goes on from here. Only the residual must be as exact as float; what bf16 rounds off
// the direction and the tangent is scaled by the learning rate.
//
// Through memory pass, per element of q (+ read, - written): qᵀa +4, the step +8 -6, the residual +4, the update +6 -6: 34 bytes,
// with a direction in bf16 and a twin of q; a float one is 6 more, no twin 4 more, a GPU older than Hopper 10. The stepped matrix
// is nowhere in memory but as three parts, hi + lo + rest, which are it to the last bit. Per element of sym: 12.
//
// The update: with X = ½R + C, C diagonal, (I + X)(I - R)(I + X) = I - ¾R² + 2C + terms of third order. Here C holds the
// diagonal's own series, C_ii = (1 - R_ii)^-½ - 1 - ½R_ii, and ⅜ Σ_{j≠i} R_ij², and column j of ½R is scaled by
// 1 + ³⁄₂R_jj. What remains of ¾R² are its elements off the diagonal: ¾|R_ij| |R_ii - R_jj| and ¾ Σ_{k≠i,j} R_ik R_kj, which
// is at most ¾ of the longest row's square.
#include "core/kernels/flat.h"
#include "cuda/device/elementwise.cuh"
#include "cuda/device/index.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/kernels/stiefel.cuh"
#include "cuda/kernels/stiefel_products.h"
#include "cuda/kernels/stiefel_residual.h"
#include "cuda/runtime/gemm.h"

#include <algorithm>

namespace ermoe::cuda {
namespace {

constexpr int side = 64, square_threads = 256, rows_at_once = square_threads / (side / 8);

/// to = ½ (s + sᵀ): a block takes two squares that mirror each other. 8 divides n.
__global__ void __launch_bounds__(square_threads) symmetrize_kernel(int64_t n, const bf16* s, bf16* to) {
  if (blockIdx.x < blockIdx.y) return;
  __shared__ uint16_t mirrored[2][side][side + 1];  // of each square its transpose
  const int row = static_cast<int>(threadIdx.x) / 8, column = static_cast<int>(threadIdx.x) % 8 * 8;
  const int64_t i0 = static_cast<int64_t>(blockIdx.y) * side, j0 = static_cast<int64_t>(blockIdx.x) * side, matrix = blockIdx.z * n * n;
  Pack<bf16, 8> own[2][side / rows_at_once];
  const auto each = [&](auto&& fn) {
#pragma unroll
    for (int square = 0; square < 2; ++square)
#pragma unroll
      for (int l = 0; l < side / rows_at_once; ++l) {
        const int64_t i = (square == 0 ? i0 : j0) + row + l * rows_at_once, j = (square == 0 ? j0 : i0) + column;
        if (i < n && j < n) fn(square, row + l * rows_at_once, matrix + i * n + j, own[square][l]);
      }
  };
  each([&](int, int, int64_t at, Pack<bf16, 8>& pack) { pack = load<8>(s + at); });
  each([&](int square, int y, int64_t, const Pack<bf16, 8>& pack) {
#pragma unroll
    for (int k = 0; k < 8; ++k) mirrored[square][column + k][y] = pack.v[k].bits;
  });
  __syncthreads();
  each([&](int square, int y, int64_t at, const Pack<bf16, 8>& pack) {
    Pack<bf16, 8> out;
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      bf16 other;
      other.bits = mirrored[1 - square][y][column + k];
      out.v[k] = narrow<bf16>(0.5f * (widen(pack.v[k]) + widen(other)));
    }
    store(to + at, out);
  });
}

/// The stepped matrix: hi + lo + rest, each what bf16 holds of what those before it leave.
struct Parts {
  bf16 *hi, *lo, *rest;
};

/// The parts of q - lr · tangent, without a tangent of q itself. `rest` may be the tangent.
struct Split {
  float lr;
  const float* q;
  const bf16* tangent;
  Parts parts;
  template <int V>
  __device__ void run(int64_t i) const {
    auto left = load<V>(q + i);
    if (tangent != nullptr) {
      const auto ts = load<V>(tangent + i);
#pragma unroll
      for (int k = 0; k < V; ++k) left.v[k] = __fmaf_rn(-lr, widen(ts.v[k]), left.v[k]);
    }
    for (bf16* part : {parts.hi, parts.lo, parts.rest}) {
      Pack<bf16, V> taken;
#pragma unroll
      for (int k = 0; k < V; ++k) {
        taken.v[k] = narrow<bf16>(left.v[k]);
        left.v[k] -= widen(taken.v[k]);
      }
      store(part + i, taken);
    }
  }
};

constexpr int judge_threads = 512;
constexpr float enough = 3e-6f;  // of the bound: with what rounding adds, within the promise

struct Verdict {
  float *scale, *own;        // (batch, n): factors of the update's columns and of the stepped matrix's
  unsigned *updates, *done;  // (batch): whether the update is to be applied, and whether it suffices
};

/// A block a matrix: norms of its residual, from them the update's coefficients and whether one update is enough.
__global__ void __launch_bounds__(judge_threads) judge_kernel(Residual work, Verdict verdict) {
  const int64_t n = work.n, matrix = blockIdx.x;
  const float* const diagonal = work.diagonal + matrix * n;
  float off_row = 0, row = 0, row_sum = 0, off = 0, low = INFINITY, high = -INFINITY, total = 0;
  bool broken = false;
  for (int64_t i = threadIdx.x; i < n; i += judge_threads) {
    const float square = work.row_total(matrix, Residual::squares, i), sum = work.row_total(matrix, Residual::sums, i), d = diagonal[i];
    broken |= !isfinite(square) || !isfinite(sum) || !isfinite(d);
    off_row = fmaxf(off_row, square);
    row = fmaxf(row, square + d * d);
    row_sum = fmaxf(row_sum, sum + fabsf(d));
    off = fmaxf(off, work.row_total(matrix, Residual::largest, i));
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
  constexpr float rounded = 1 + 1.0f / 128;  // what half's rounding may have taken from the squares
  const float spectral = fminf(sqrtf(total), row_sum);
  const float bound =
      rounded * (0.75f * (off_row + 2 * off * (high - low)) + 0.25f * row * spectral + off / 512);  // the last: half's rounding
  const bool small = !broken && spectral < 0.5f;
  verdict.updates[matrix] = small;
  verdict.done[matrix] = small && bound <= enough;
}

/// q = stepped diag(own) + u diag(scale), or stepped where there is no update; and its twin where there is one.
struct Apply {
  int64_t n, count;
  Parts parts;
  const bf16* u;
  Verdict verdict;
  float* q;
  bf16* twin;
  template <int V>
  __device__ void run(int64_t i) const {
    const auto [row, column] = divide(i, n);
    const int64_t matrix = divide(i, count).row;
    const auto hi = load<V>(parts.hi + i), lo = load<V>(parts.lo + i), rest = load<V>(parts.rest + i);
    Pack<float, V> out;
#pragma unroll
    for (int k = 0; k < V; ++k) out.v[k] = widen(hi.v[k]) + widen(lo.v[k]) + widen(rest.v[k]);
    if (verdict.updates[matrix] != 0) {
      const auto us = load<V>(u + i);
      const auto own = load<V>(verdict.own + matrix * n + column), scale = load<V>(verdict.scale + matrix * n + column);
#pragma unroll
      for (int k = 0; k < V; ++k) out.v[k] = out.v[k] * own.v[k] + widen(us.v[k]) * scale.v[k];
    }
    store(q + i, out);
    if (twin == nullptr) return;
    Pack<bf16, V> rounded;
#pragma unroll
    for (int k = 0; k < V; ++k) rounded.v[k] = narrow<bf16>(out.v[k]);
    store(twin + i, rounded);
  }
};

int64_t count_of(const StiefelDims& d) { return d.batch * d.rows * d.cols; }

void symmetrize(const Stream& stream, const StiefelDims& d, const bf16* s, bf16* to) {
  const auto squares = static_cast<unsigned>((d.cols + side - 1) / side);
  symmetrize_kernel<<<dim3(squares, squares, static_cast<unsigned>(d.batch)), square_threads, 0, native(stream)>>>(d.cols, s, to);
  cuda_check(cudaGetLastError(), "stiefel_step");
}

bool on_hopper(const Stream& stream) { return state_of(stream).major == 9; }
ProductDims product_dims(const StiefelDims& d) { return {.batch = d.batch, .m = d.rows, .n = d.cols}; }

/// q and its twin from the stepped matrix, by `half`.
void update(const Stream& stream, const StiefelDims& d, const Parts& parts, const Verdict& verdict, float* q, bf16* twin,
            const FastScratch& scratch) {
  const bf16* const half = scratch.parts.half;
  if (on_hopper(stream))
    return update_wgmma(stream, {.dims = product_dims(d),
                                 .hi = parts.hi,
                                 .lo = parts.lo,
                                 .rest = parts.rest,
                                 .half = half,
                                 .own = verdict.own,
                                 .scale = verdict.scale,
                                 .updates = verdict.updates,
                                 .q = q,
                                 .twin = twin});
  bf16* const product = scratch.parts.product;
  gemm(stream, packed_gemm(Trans::no, Trans::no, d.rows, d.cols, d.cols, d.batch), 1, static_cast<const bf16*>(parts.hi), half, 0, product);
  const Apply apply{.n = d.cols, .count = d.rows * d.cols, .parts = parts, .u = product, .verdict = verdict, .q = q, .twin = twin};
  elementwise<bf16>(stream, count_of(d), apply, "stiefel_step", q);
}

/// Where the parts are: `rest` in the direction, if there is one.
Parts parts_in(const StiefelDims& d, bf16* direction, float* spare, const FastScratch& scratch) {
  auto* const halves = reinterpret_cast<bf16*>(spare);
  return {.hi = halves + count_of(d), .lo = scratch.parts.lo, .rest = direction != nullptr ? direction : halves};
}

/// From the stepped matrix to q.
void come_back(const Stream& stream, const StiefelDims& d, const Parts& parts, float* q, bf16* twin, float* spare,
               const FastScratch& scratch) {
  float* const numbers = scratch.parts.numbers;
  unsigned* const flags = scratch.parts.flags;
  const int64_t square = d.batch * d.cols;
  const Residual residual{.batch = d.batch,
                          .m = d.rows,
                          .n = d.cols,
                          .hi = parts.hi,
                          .lo = parts.lo,
                          .half = scratch.parts.half,
                          .diagonal = numbers,
                          .partials = numbers + 3 * square,
                          .spare = reinterpret_cast<float*>(scratch.parts.product),
                          .spare_size = count_of(d) / 2};
  const Verdict verdict{.scale = numbers + square, .own = numbers + 2 * square, .updates = flags, .done = flags + d.batch};
  (on_hopper(stream) ? residual_wgmma : residual_mma)(stream, residual);
  judge_kernel<<<static_cast<unsigned>(d.batch), judge_threads, 0, native(stream)>>>(residual, verdict);
  cuda_check(cudaGetLastError(), "stiefel_step");
  update(stream, d, parts, verdict, q, twin, scratch);
  newton_schulz(stream, d, NewtonSchulzLimits<float>::step_iterations, q, spare, q, twin, scratch.newton_schulz, verdict.done);
}

}  // namespace

bool fast_step_fits(const StiefelDims& d, const float* q, const void* direction, const bf16* twin) {
  return d.cols % 8 == 0 && d.cols >= Residual::block && d.batch > 0 && d.batch <= 65535 && all_aligned(q, direction, twin);
}

FastSizes fast_sizes(const StiefelDims& d) {
  return {.matrix = count_of(d),
          .square = d.batch * d.cols * d.cols,
          .numbers = d.batch * d.cols * (3 + Residual::parts * Residual{.n = d.cols}.blocks()),
          .flags = 2 * d.batch};
}

void fast_step(const Stream& stream, const StiefelDims& d, float lr, float* q, bf16* direction, bf16* twin, float* spare, float* square,
               const FastScratch& scratch) {
  const int64_t m = d.rows, n = d.cols;
  bf16 *const rounded = twin != nullptr ? twin : scratch.parts.rounded, *const sym = scratch.parts.half;
  if (twin == nullptr) convert(stream, count_of(d), static_cast<const float*>(q), rounded, Accumulate::overwrite);
  auto* const gram = reinterpret_cast<bf16*>(square);
  gemm(stream, packed_gemm(Trans::yes, Trans::no, n, n, m, d.batch), 1, rounded, direction, 0, gram);
  symmetrize(stream, d, gram, sym);
  const Parts parts = parts_in(d, direction, spare, scratch);
  if (on_hopper(stream)) {
    step_wgmma(
        stream,
        {.dims = product_dims(d), .lr = lr, .q = q, .twin = rounded, .sym = sym, .direction = direction, .hi = parts.hi, .lo = parts.lo});
  } else {
    bf16* const tangent = direction;
    gemm(stream, packed_gemm(Trans::no, Trans::no, m, n, n, d.batch), -1, rounded, sym, 1, tangent);
    elementwise<bf16>(stream, count_of(d), Split{.lr = lr, .q = q, .tangent = tangent, .parts = parts}, "stiefel_step", q);
  }
  come_back(stream, d, parts, q, twin, spare, scratch);
}

void fast_retract(const Stream& stream, const StiefelDims& d, float* q, bf16* twin, float* spare, const FastScratch& scratch) {
  const Parts parts = parts_in(d, nullptr, spare, scratch);
  elementwise<bf16>(stream, count_of(d), Split{.lr = 0, .q = q, .tangent = nullptr, .parts = parts}, "stiefel_step", q);
  come_back(stream, d, parts, q, twin, spare, scratch);
}

}  // namespace ermoe::cuda
