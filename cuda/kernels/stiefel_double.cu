// What the orthogonal step does in double on the GPU: factorisations of (n, n) matrices, rows solved with them, and the
// residual that tests ask for. The methods that factor are there for comparison, so exactness comes before speed: the Gram
// matrix of float columns loses nothing, and LU without pivoting is safe where the symmetric part is positive definite.
#include "cuda/device/group.cuh"
#include "cuda/device/reduce.cuh"
#include "cuda/kernels/stiefel.cuh"

namespace ermoe::cuda {
namespace {

constexpr int threads = 256, panel = 32, rows_each = panel * panel / threads;

/// A square of doubles in shared memory. Thread t has column t % 32 and every eighth row from t / 32 on.
struct Square {
  double at[panel][panel + 1];
};
__device__ int column_of() { return threadIdx.x % panel; }
__device__ int row_of(int i) { return threadIdx.x / panel + i * (threads / panel); }

/// square_ij = from[i · ld + j] inside (rows, cols), 0 outside.
template <typename T>
__device__ void load_square(Square& square, const T* from, int64_t ld, int64_t rows, int64_t cols) {
#pragma unroll
  for (int i = 0; i < rows_each; ++i) {
    const int row = row_of(i), column = column_of();
    square.at[row][column] = row < rows && column < cols ? static_cast<double>(from[row * ld + column]) : 0.0;
  }
}

/// sum_i += Σ_k a[row_i][k] b[k][column].
__device__ void multiply(const Square& a, const Square& b, double (&sum)[rows_each]) {
#pragma unroll 8
  for (int k = 0; k < panel; ++k)
#pragma unroll
    for (int i = 0; i < rows_each; ++i) sum[i] += a.at[row_of(i)][k] * b.at[k][column_of()];
}
__device__ void multiply_transposed(const Square& a, const Square& b, double (&sum)[rows_each]) {
#pragma unroll 8
  for (int k = 0; k < panel; ++k)
#pragma unroll
    for (int i = 0; i < rows_each; ++i) sum[i] += a.at[k][row_of(i)] * b.at[k][column_of()];
}

/// s (n, n) = qᵀq, by tiles of the upper triangle.
__device__ void gram(const BlockGroup& group, int64_t m, int64_t n, const float* q, double* s, Square& a, Square& b) {
  const int64_t tiles = (n + panel - 1) / panel;
  for (int64_t t = group.member; t < tiles * tiles; t += group.members) {
    const int64_t i0 = t / tiles * panel, j0 = t % tiles * panel;
    if (j0 < i0) continue;
    double sum[rows_each] = {};
    for (int64_t k = 0; k < m; k += panel) {
      load_square(a, q + k * n + i0, n, m - k, n - i0);
      load_square(b, q + k * n + j0, n, m - k, n - j0);
      __syncthreads();
      multiply_transposed(a, b, sum);
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < rows_each; ++i) {
      const int64_t row = i0 + row_of(i), column = j0 + column_of();
      if (row >= n || column >= n) continue;
      s[row * n + column] = sum[i];
      if (i0 != j0) s[column * n + row] = sum[i];
    }
  }
}

/// The factors of a square in its place: L below the diagonal, which is 1 there, U on and above it.
__device__ void factor_square(Square& square, int64_t size) {
  for (int k = 0; k < size - 1; ++k) {
    if (threadIdx.x > k && threadIdx.x < size) square.at[threadIdx.x][k] /= square.at[k][k];
    __syncthreads();
#pragma unroll
    for (int i = 0; i < rows_each; ++i) {
      const int row = row_of(i), column = column_of();
      if (row > k && column > k) square.at[row][column] -= square.at[row][k] * square.at[k][column];
    }
    __syncthreads();
  }
}

/// The panels beside and below a factored diagonal square at p: L_ip = S_ip U_pp⁻¹ and U_pj = L_pp⁻¹ S_pj, a warp a row or
/// a column, a lane an element of it.
__device__ void solve_panels(const BlockGroup& group, int64_t n, int64_t p, int64_t size, double* s, const Square& diagonal) {
  constexpr int warps = threads / warp_size;
  const int lane = threadIdx.x % warp_size;
  const int64_t rest = n - p - size;
  for (int64_t t = static_cast<int64_t>(group.member) * warps + threadIdx.x / warp_size; t < 2 * rest; t += group.members * warps) {
    const bool below = t < rest;
    double* const own = below ? s + (p + size + t) * n + p + lane : s + (p + lane) * n + p + size + (t - rest);
    double x = lane < size ? *own : 0.0;
    for (int k = 0; k < size; ++k) {
      if (below && lane == k) x /= diagonal.at[k][k];
      const double solved = __shfl_sync(all_lanes, x, k);
      if (lane > k) x -= solved * (below ? diagonal.at[k][lane] : diagonal.at[lane][k]);
    }
    if (lane < size) *own = x;
  }
}

/// s (n, n) becomes its L and U, without pivoting.
__device__ void factor(BlockGroup& group, int64_t n, double* s, Square& a, Square& b) {
  for (int64_t p = 0; p < n; p += panel) {
    const int64_t size = min(static_cast<int64_t>(panel), n - p), next = p + size, tiles = (n - next + panel - 1) / panel;
    load_square(a, s + p * n + p, n, size, size);  // every member factors it for itself
    __syncthreads();
    factor_square(a, size);
    solve_panels(group, n, p, size, s, a);
    group.sync();  // everybody has read the diagonal, and the panels are done
    if (group.member == 0) {
#pragma unroll
      for (int i = 0; i < rows_each; ++i)
        if (row_of(i) < size && column_of() < size) s[(p + row_of(i)) * n + p + column_of()] = a.at[row_of(i)][column_of()];
    }
    __syncthreads();
    for (int64_t t = group.member; t < tiles * tiles; t += group.members) {
      const int64_t i0 = next + t / tiles * panel, j0 = next + t % tiles * panel;
      load_square(a, s + i0 * n + p, n, n - i0, size);
      load_square(b, s + p * n + j0, n, size, n - j0);
      __syncthreads();
      double sum[rows_each] = {};
      multiply(a, b, sum);
#pragma unroll
      for (int i = 0; i < rows_each; ++i)
        if (i0 + row_of(i) < n && j0 + column_of() < n) s[(i0 + row_of(i)) * n + j0 + column_of()] -= sum[i];
      __syncthreads();
    }
    group.sync();
  }
}

enum class Solve { upper, unit_lower };

/// 32 rows x (rows, n) in place: x <- x U⁻¹ from the first panel on, or x <- x L⁻¹ from the last.
template <Solve Which>
__device__ void solve_block(int64_t rows, int64_t n, const double* s, float* x, Square& a, Square& b, Square& block) {
  const int64_t panels = (n + panel - 1) / panel;
  for (int64_t step = 0; step < panels; ++step) {
    const int64_t at = Which == Solve::upper ? step : panels - 1 - step, j0 = at * panel, size = min(static_cast<int64_t>(panel), n - j0);
    double sum[rows_each] = {};
    for (int64_t done = 0; done < step; ++done) {
      const int64_t k0 = (Which == Solve::upper ? done : panels - 1 - done) * panel, depth = min(static_cast<int64_t>(panel), n - k0);
      load_square(a, x + k0, n, rows, depth);
      load_square(b, s + k0 * n + j0, n, depth, size);
      __syncthreads();
      multiply(a, b, sum);
      __syncthreads();
    }
    load_square(b, s + j0 * n + j0, n, size, size);
    load_square(block, x + j0, n, rows, size);
    __syncthreads();
#pragma unroll
    for (int i = 0; i < rows_each; ++i) block.at[row_of(i)][column_of()] -= sum[i];
    __syncthreads();
    if (threadIdx.x < panel) {  // a thread a row
      double* const row = block.at[threadIdx.x];
      for (int64_t i = 0; i < size; ++i) {
        const int64_t j = Which == Solve::upper ? i : size - 1 - i;
        double value = row[j];
        for (int64_t l = 0; l < i; ++l) {
          const int64_t k = Which == Solve::upper ? l : size - 1 - l;
          value -= row[k] * b.at[k][j];
        }
        row[j] = Which == Solve::upper ? value / b.at[j][j] : value;
      }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < rows_each; ++i)
      if (row_of(i) < rows && column_of() < size)
        x[row_of(i) * n + j0 + column_of()] = static_cast<float>(block.at[row_of(i)][column_of()]);
    __syncthreads();
  }
}

/// Twice q <- q R⁻¹ with RᵀR = qᵀq: from qᵀq = L U, D the diagonal of U, R = D^½ Lᵀ = D^-½ U. The first pass loses what the
/// condition of the columns costs float; where that is little, it is the only one.
__global__ void __launch_bounds__(threads)
    orthonormalize_kernel(GroupGrid grid, int64_t batch, int64_t m, int64_t n, float* all, double* squares) {
  __shared__ Square a, b, block;
  BlockGroup group = grid.own();
  for (int64_t matrix = grid.group(); matrix < batch; matrix += grid.groups) {
    float* const q = all + matrix * m * n;
    double* const s = squares + matrix * n * n;
    for (int pass = 0; pass < 2; ++pass) {
      gram(group, m, n, q, s, a, b);
      group.sync();
      factor(group, n, s, a, b);
      float smallest = INFINITY, largest = 0;
      for (int64_t i = threadIdx.x; i < n; i += threads) {
        smallest = fminf(smallest, static_cast<float>(s[i * n + i]));
        largest = fmaxf(largest, static_cast<float>(s[i * n + i]));
      }
      smallest = -block_max<threads>(-smallest);
      largest = block_max<threads>(largest);
      for (int64_t r0 = static_cast<int64_t>(group.member) * panel; r0 < m; r0 += static_cast<int64_t>(group.members) * panel) {
        const int64_t rows = min(static_cast<int64_t>(panel), m - r0);
        solve_block<Solve::upper>(rows, n, s, q + r0 * n, a, b, block);
        for (int64_t i = threadIdx.x; i < rows * n; i += threads)
          q[r0 * n + i] = static_cast<float>(q[r0 * n + i] * sqrt(s[i % n * n + i % n]));
        __syncthreads();
      }
      group.sync();
      if (largest < 2 * smallest) break;
    }
  }
}

__global__ void __launch_bounds__(threads)
    solve_rows_kernel(GroupGrid grid, int64_t batch, int64_t m, int64_t n, float* all, double* squares) {
  __shared__ Square a, b, block;
  BlockGroup group = grid.own();
  for (int64_t matrix = grid.group(); matrix < batch; matrix += grid.groups) {
    double* const s = squares + matrix * n * n;
    factor(group, n, s, a, b);
    for (int64_t r0 = static_cast<int64_t>(group.member) * panel; r0 < m; r0 += static_cast<int64_t>(group.members) * panel) {
      const int64_t rows = min(static_cast<int64_t>(panel), m - r0);
      float* const x = all + (matrix * m + r0) * n;
      solve_block<Solve::upper>(rows, n, s, x, a, b, block);
      solve_block<Solve::unit_lower>(rows, n, s, x, a, b, block);
    }
  }
}

/// worst = max |qᵀq - I| over the batch, a tile of the upper triangle a block. Bits of numbers >= 0 compare as integers, and
/// a NaN lies above all of them, so that the order in which blocks come does not matter.
__global__ void __launch_bounds__(threads)
    residual_kernel(int64_t batch, int64_t m, int64_t n, const float* all, unsigned long long* worst) {
  __shared__ Square a, b;
  const int64_t tiles = (n + panel - 1) / panel, i0 = blockIdx.x / tiles * panel, j0 = blockIdx.x % tiles * panel;
  if (j0 < i0) return;
  unsigned long long own = 0;
  for (int64_t matrix = blockIdx.y; matrix < batch; matrix += gridDim.y) {
    const float* const q = all + matrix * m * n;
    double sum[rows_each] = {};
    for (int64_t k = 0; k < m; k += panel) {
      load_square(a, q + k * n + i0, n, m - k, n - i0);
      load_square(b, q + k * n + j0, n, m - k, n - j0);
      __syncthreads();
      multiply_transposed(a, b, sum);
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < rows_each; ++i) {
      const int64_t row = i0 + row_of(i), column = j0 + column_of();
      if (row >= n || column >= n) continue;
      const double off = fabs(sum[i] - (row == column ? 1.0 : 0.0));
      own = max(own, static_cast<unsigned long long>(__double_as_longlong(off)));
    }
  }
  atomicMax(worst, own);
}

int64_t panels_of(int64_t size) { return (size + panel - 1) / panel; }

}  // namespace

void orthonormalize_columns(const Stream& stream, const StiefelDims& d, float* q, const FactorScratch& scratch) {
  launch_groups(stream, orthonormalize_kernel, threads, d.batch, panels_of(d.cols) * panels_of(d.rows), scratch.arrivals,
                "orthonormalize_columns", d.batch, d.rows, d.cols, q, scratch.square);
}

void solve_rows(const Stream& stream, const StiefelDims& d, float* rows, const FactorScratch& scratch) {
  launch_groups(stream, solve_rows_kernel, threads, d.batch, panels_of(d.cols) * panels_of(d.rows), scratch.arrivals, "solve_rows", d.batch,
                d.rows, d.cols, rows, scratch.square);
}

void largest_residual(const Stream& stream, const StiefelDims& d, const float* q, double* worst) {
  if (d.batch == 0) return;
  const dim3 grid(static_cast<unsigned>(panels_of(d.cols) * panels_of(d.cols)), static_cast<unsigned>(std::min<int64_t>(d.batch, 65535)));
  residual_kernel<<<grid, threads, 0, native(stream)>>>(d.batch, d.rows, d.cols, q, reinterpret_cast<unsigned long long*>(worst));
  cuda_check(cudaGetLastError(), "orthogonality_residual");
}

}  // namespace ermoe::cuda
