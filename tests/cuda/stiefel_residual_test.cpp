// The residual I - qᵀq by either kernel against sums in double, at sizes ragged against every tile, with and without scratch
// memory for shared tiles; and its speed at the sizes of ViT-S/16 and ViT-B/16.
#include "cuda/kernels/stiefel_residual.h"

#include "tests/cuda/speed.h"

#include <fmt/format.h>

namespace ermoe::testing {
namespace {

using cuda::Residual;

size_t at(int64_t i) { return static_cast<size_t>(i); }

enum class Kernel { mma, wgmma_whole, wgmma_shared };

/// q in two parts, and memory for what is made from it.
struct Job {
  Job(GpuBench& gpu, int64_t batch, int64_t m, int64_t n, const Tensor& high, const Tensor& low, Kernel which) : kernel(which) {
    const int64_t slot = Residual::wide_tile * Residual::wide_tile + 2, room = which == Kernel::wgmma_shared ? 256 * slot : 0;
    half = gpu.ctx.empty({batch, n, n}, DType::bf16);
    diagonal = gpu.ctx.empty({batch, n}, DType::f32);
    work = {.batch = batch, .m = m, .n = n};
    partials = gpu.ctx.empty({batch, Residual::parts, work.blocks(), n}, DType::f32);
    spare = gpu.ctx.empty({room}, DType::f32);
    work.hi = high.data<bf16>();
    work.lo = low.data<bf16>();
    work.half = half.data<bf16>();
    work.diagonal = diagonal.data<float>();
    work.partials = partials.data<float>();
    work.spare = room > 0 ? spare.data<float>() : nullptr;
    work.spare_size = room;
  }
  void run(GpuBench& gpu) const { (kernel == Kernel::mma ? cuda::residual_mma : cuda::residual_wgmma)(gpu.ctx.stream, work); }

  Kernel kernel;
  Residual work;
  Tensor half, diagonal, partials, spare;
};

/// hi and lo of random numbers whose columns are about as long as those of an orthonormal matrix; lo 16 times too large, so that
/// lo·lo shows.
struct Parts {
  Parts(GpuBench& gpu, int64_t batch, int64_t m, int64_t n) {
    std::vector<bf16> high, low;
    for (int64_t i = 0; i < batch * m * n; ++i) {
      const float q = (2 * uniform(RngKey{7}, static_cast<uint64_t>(i)) - 1) * std::sqrt(3.0f / static_cast<float>(m));
      high.emplace_back(q);
      low.emplace_back(16 * (q - static_cast<float>(high.back())));
      exact.push_back(static_cast<double>(static_cast<float>(high.back())) + static_cast<double>(static_cast<float>(low.back())));
      rest.push_back(static_cast<float>(low.back()));
    }
    hi = Tensor::from<bf16>(gpu.allocator, {batch, m, n}, high);
    lo = Tensor::from<bf16>(gpu.allocator, {batch, m, n}, low);
  }
  Tensor hi, lo;
  std::vector<double> exact, rest;  // hi + lo, lo
};

/// Σ_k q(k, i) q(k, j).
std::vector<double> gram(const double* q, int64_t m, int64_t n) {
  std::vector<double> sums(at(n * n), 0.0);
  for (int64_t k = 0; k < m; ++k)
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = i; j < n; ++j) sums[at(i * n + j)] += q[k * n + i] * q[k * n + j];
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < i; ++j) sums[at(i * n + j)] = sums[at(j * n + i)];
  return sums;
}

/// One matrix of what the kernel made, against products in double; and the norms of its rows.
void expect_residual(const Job& job, const Parts& q, int64_t matrix, const std::vector<double>& half, const std::vector<double>& diagonal,
                     const Tensor& partials) {
  // Of a sum near 1: tensor cores add 16 rows at a time and drop what lies below the last bit of the sum so far. Sums start anew
  // every 128 rows, so that is at most 2^-23 of the round's share, by 8 steps of 4 products (the wide tiles' of 3).
  constexpr double cut_off = 8 * 4 * 0x1p-23;
  const int64_t m = job.work.m, n = job.work.n;
  const auto all = gram(q.exact.data() + matrix * m * n, m, n), low = gram(q.rest.data() + matrix * m * n, m, n);
  Residual norms = job.work;
  norms.partials = partials.data<float>();
  for (int64_t i = 0; i < n; ++i) {
    ASSERT_NEAR(diagonal[at(matrix * n + i)], 1 - all[at(i * n + i)], cut_off * all[at(i * n + i)]) << "diagonal " << i;
    double squares = 0, sums = 0, largest = 0;
    for (int64_t j = 0; j < n; ++j) {
      const double made = half[at((matrix * n + i) * n + j)], r = i == j ? 0 : -all[at(i * n + j)];
      const double optional = i == j ? 0 : std::abs(low[at(i * n + j)]);  // lo·lo off the diagonal
      ASSERT_NEAR(made, r / 2, std::abs(r) / 512 + (i == j ? 0 : (optional + cut_off) / 2)) << i << ", " << j;
      ASSERT_EQ(made, half[at((matrix * n + j) * n + i)]) << i << ", " << j;
      squares += 4 * made * made;
      sums += std::abs(2 * made);
      largest = std::max(largest, std::abs(2 * made));
    }
    ASSERT_NEAR(norms.row_total(matrix, Residual::squares, i), squares, 1e-5 * squares) << "row " << i;
    ASSERT_NEAR(norms.row_total(matrix, Residual::sums, i), sums, 1e-5 * sums) << "row " << i;
    ASSERT_EQ(norms.row_total(matrix, Residual::largest, i), largest) << "row " << i;
  }
}

void check_residual(int64_t batch, int64_t m, int64_t n) {
  GpuBench gpu;
  const Parts q(gpu, batch, m, n);
  for (const Kernel kernel : {Kernel::mma, Kernel::wgmma_whole, Kernel::wgmma_shared}) {
    SCOPED_TRACE(fmt::format("kernel {} on ({}, {}, {})", static_cast<int>(kernel), batch, m, n));
    if (kernel != Kernel::mma && !is_hopper(gpu)) continue;
    const Job job(gpu, batch, m, n, q.hi, q.lo, kernel), again(gpu, batch, m, n, q.hi, q.lo, kernel);
    job.run(gpu);
    again.run(gpu);
    const auto half = to_doubles(on_host(gpu.ctx, job.half)), diagonal = to_doubles(on_host(gpu.ctx, job.diagonal));
    const Tensor partials = on_host(gpu.ctx, job.partials);
    for (int64_t matrix = 0; matrix < batch; matrix += std::max<int64_t>(1, batch - 1))  // the first and the last
      expect_residual(job, q, matrix, half, diagonal, partials);
    EXPECT_EQ(half, to_doubles(on_host(gpu.ctx, again.half)));
    EXPECT_EQ(diagonal, to_doubles(on_host(gpu.ctx, again.diagonal)));
  }
}

TEST(StiefelResidualOnGpu, IsThatOfSumsInDouble) {
  struct Sizes {
    int64_t batch, m, n;
  };
  for (const auto& [batch, m, n] : {Sizes{1, 64, 64}, Sizes{3, 75, 72}, Sizes{2, 700, 136}, Sizes{3, 333, 200}, Sizes{1, 520, 392},
                                    Sizes{1, 768, 384}, Sizes{100, 260, 136}})
    ERMOE_NEEDS_GPU(check_residual(batch, m, n));
}

/// Prints the times and fails where Hopper's kernel loses.
void compare_speed(int64_t batch, int64_t m, int64_t n) {
  GpuBench gpu;
  if (!is_hopper(gpu)) return;
  const Tensor hi = random_matrix(gpu, batch * m * n), lo = random_matrix(gpu, batch * m * n);
  const auto milliseconds = [&](Kernel kernel) {
    const Job job(gpu, batch, m, n, hi, lo, kernel);
    return time_of(gpu, [&] { job.run(gpu); });
  };
  const double mma = milliseconds(Kernel::mma), whole = milliseconds(Kernel::wgmma_whole), shared = milliseconds(Kernel::wgmma_shared);
  const double tera = 3e-9 * static_cast<double>(batch * m * n * n);
  fmt::print("{} x ({}, {}): mma {:.3f} ms, wgmma by whole tiles {:.3f} ms, by shared ones {:.3f} ms, {:.0f} TFLOP/s\n", batch, m, n, mma,
             whole, shared, tera / shared);
  EXPECT_LT(shared, mma);
  EXPECT_LT(shared, 1.1 * whole);
}

TEST(StiefelResidualSpeedOnGpu, KeepsUpOnHopper) {
  struct Sizes {
    int64_t batch, m, n;
  };
  for (const auto& [batch, m, n] : {Sizes{24, 1536, 384}, Sizes{48, 384, 384}, Sizes{8, 3072, 768}, Sizes{24, 768, 768}})
    ERMOE_NEEDS_GPU(compare_speed(batch, m, n));
}

}  // namespace
}  // namespace ermoe::testing
