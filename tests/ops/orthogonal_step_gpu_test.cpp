// Steps on the Stiefel manifold on a GPU, against the CPU's and against the manifold itself.
#include "tests/ops/stiefel_case.h"

#if defined(ERMOE_WITH_CUDA)

namespace ermoe::testing {
namespace {

using StiefelOnGpu = OfEachMethod;

TEST_P(StiefelOnGpu, TakesTheSameStepAsTheCpuAndStaysOnTheManifold) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  for (const Shape& shape : {Shape{1, 1}, Shape{7, 7}, Shape{3, 13, 5}, Shape{2, 3, 96, 64}, Shape{1, 300, 150}, Shape{2, 260, 257},
                             Shape{2, 200, 136}, Shape{1, 520, 520}}) {
    TestBench cpu;
    GpuBench gpu;
    const Tensor on_cpu = orthonormal(cpu.ctx, shape, DType::f32, 1), on_gpu = to_device(gpu.ctx, on_cpu);
    for (uint64_t step = 0; step < 6; ++step) {
      stiefel_step(gpu.ctx, on_gpu, gaussian(gpu.ctx, shape, DType::f32, 100 + step), 1e-2, GetParam());
      ASSERT_LE(orthogonality_residual(gpu.ctx, on_gpu), promise) << shape.str() << " step " << step;
      if (step > 0) continue;
      const Tensor direction = gaussian(cpu.ctx, shape, DType::f32, 100);
      double longest = 0;
      for (const double d : to_doubles(direction)) longest = std::max(longest, std::abs(d));
      stiefel_step(cpu.ctx, on_cpu, direction, 1e-2, GetParam());
      // Newton-Schulz on a GPU rounds the direction to bf16, which keeps 8 bits of a step; the manifold is kept as above.
      EXPECT_LE(largest_difference(to_doubles(on_gpu), to_doubles(on_cpu)), std::max(5e-5, 1e-2 * longest / 256)) << shape.str();
    }
  }
}

TEST_P(StiefelOnGpu, RepeatsBitForBit) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  const auto run = [&] {
    GpuBench gpu;
    const Tensor q = orthonormal(gpu.ctx, {5, 260, 131}, DType::f32, 1);
    for (uint64_t step = 0; step < 3; ++step)
      stiefel_step(gpu.ctx, q, gaussian(gpu.ctx, {5, 260, 131}, DType::f32, 2 + step), 0.03, GetParam());
    return to_doubles(q);
  };
  EXPECT_EQ(run(), run());
}

TEST_P(StiefelOnGpu, KeepsExpertsOfRealSizeOnTheManifold) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  const Shape shape{4, 1536, 384};
  GpuBench gpu;
  const Tensor q = orthonormal(gpu.ctx, shape, DType::f32, 1);
  EXPECT_LE(orthogonality_residual(gpu.ctx, q), promise);
  for (uint64_t step = 0; step < 3; ++step) {
    stiefel_step(gpu.ctx, q, gaussian(gpu.ctx, shape, DType::f32, 2 + step), 1e-3, GetParam());
    EXPECT_LE(orthogonality_residual(gpu.ctx, q), promise) << "step " << step;
  }
}

TEST_P(StiefelOnGpu, ANaNDirectionEndsAndShows) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  GpuBench gpu;
  TestBench cpu;
  const Tensor q = orthonormal(gpu.ctx, {2, 90, 40}, DType::f32, 1), direction = gaussian(cpu.ctx, {2, 90, 40}, DType::f32, 2);
  direction.data<float>()[11] = NAN;
  stiefel_step(gpu.ctx, q, to_device(gpu.ctx, direction), 1e-3, GetParam());
  EXPECT_TRUE(std::isnan(orthogonality_residual(gpu.ctx, q)));
  EXPECT_LE(orthogonality_residual(gpu.ctx, q.at(1)), promise);  // each matrix for itself
}

TEST_P(StiefelOnGpu, StepsOfAnyLengthComeBack) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  for (double lr : {1e-3, 7e-3, 1e-2, 0.1, 10.0}) {
    GpuBench gpu;
    const Tensor q = orthonormal(gpu.ctx, {2, 192, 64}, DType::f32, 1), direction = gpu.ctx.empty({2, 192, 64}, DType::f32);
    fill(direction, 1);
    stiefel_step(gpu.ctx, q, direction, lr, GetParam());
    EXPECT_LE(orthogonality_residual(gpu.ctx, q), promise) << lr;
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, StiefelOnGpu, ::testing::ValuesIn(methods), name_of_method);

/// Widths and heights that no tile of the residual divides.
TEST(NewtonSchulz, GpuTakesRaggedTiles) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  for (const Shape& shape : {Shape{3, 75, 72}, Shape{2, 520, 136}, Shape{3, 333, 200}, Shape{500, 392}}) {
    TestBench cpu;
    GpuBench gpu;
    const Tensor on_cpu = orthonormal(cpu.ctx, shape, DType::f32, 1), on_gpu = to_device(gpu.ctx, on_cpu);
    const Tensor direction = gaussian(cpu.ctx, shape, DType::f32, 100);
    stiefel_step(cpu.ctx, on_cpu, direction, 1e-3, StiefelMethod::newton_schulz);
    stiefel_step(gpu.ctx, on_gpu, to_device(gpu.ctx, direction), 1e-3, StiefelMethod::newton_schulz);
    EXPECT_LE(orthogonality_residual(gpu.ctx, on_gpu), promise) << shape.str();
    EXPECT_LE(largest_difference(to_doubles(on_gpu), to_doubles(on_cpu)), 5e-5) << shape.str();
  }
}

/// Enough matrices for their residuals' tiles to be shared among blocks; alone, one of them has whole tiles.
TEST(NewtonSchulz, GpuKeepsAWholeLayerOnTheManifold) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  const Shape shape{8, 1536, 384};
  GpuBench gpu;
  const Tensor q = orthonormal(gpu.ctx, shape, DType::f32, 1), one = q.at(5).clone();
  const Tensor direction = gaussian(gpu.ctx, shape, DType::f32, 2);
  stiefel_step(gpu.ctx, q, direction, 1e-3, StiefelMethod::newton_schulz);
  stiefel_step(gpu.ctx, one, direction.at(5), 1e-3, StiefelMethod::newton_schulz);
  EXPECT_LE(orthogonality_residual(gpu.ctx, q), promise);
  EXPECT_LE(largest_difference(to_doubles(q.at(5)), to_doubles(one)), 1e-5);  // products of other shapes may add up in another order
}

TEST(Retract, GpuFindsTheSameFactors) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  for (StiefelMethod method : {StiefelMethod::gram_schmidt, StiefelMethod::cholesky_qr})
    for (const Shape& shape : {Shape{1, 1}, Shape{2, 90, 33}, Shape{65, 64}, Shape{3, 300, 100}}) {
      TestBench cpu;
      GpuBench gpu;
      const Tensor a = gaussian(cpu.ctx, shape, DType::f32, 1), b = to_device(gpu.ctx, a);
      retract(cpu.ctx, a, method);
      retract(gpu.ctx, b, method);
      EXPECT_LE(orthogonality_residual(gpu.ctx, b), promise);
      EXPECT_LE(largest_difference(to_doubles(a), to_doubles(b)), 1e-4) << shape.str();
    }
}

TEST(Retract, GpuTellsNearlyEqualColumnsApart) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  TestBench cpu;
  GpuBench gpu;
  const Tensor q = gaussian(cpu.ctx, {30, 12}, DType::f32, 1);
  for (int64_t i = 0; i < 30; ++i) {
    float* row = q.data<float>() + i * 12;
    row[1] = row[0] * (1 + (i == 0 ? 1e-5f : 0.0f));
  }
  const Tensor on_gpu = to_device(gpu.ctx, q);
  retract(gpu.ctx, on_gpu, StiefelMethod::gram_schmidt);
  EXPECT_LE(orthogonality_residual(gpu.ctx, on_gpu), promise);
}

TEST(PolarProject, GpuFindsTheNearestFromAfar) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  for (double size : {0.01, 1.0, 300.0}) {
    TestBench cpu;
    GpuBench gpu;
    const Tensor q = gaussian(cpu.ctx, {3, 140, 46}, DType::f32, 1);
    for (float& v : q.span<float>()) v *= static_cast<float>(size);
    const Tensor on_gpu = to_device(gpu.ctx, q);
    polar_project(cpu.ctx, q);
    polar_project(gpu.ctx, on_gpu);
    EXPECT_LE(orthogonality_residual(gpu.ctx, on_gpu), promise);
    EXPECT_LE(largest_difference(to_doubles(on_gpu), to_doubles(q)), 2e-5);
  }
}

TEST(OrthogonalityResidual, GpuAgrees) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  for (const Shape& shape : {Shape{3, 17, 5}, Shape{2, 100, 70}}) {
    TestBench cpu;
    GpuBench gpu;
    const Tensor q = gaussian(cpu.ctx, shape, DType::f32, 1);
    const double residual = orthogonality_residual(cpu.ctx, q);
    EXPECT_NEAR(orthogonality_residual(gpu.ctx, to_device(gpu.ctx, q)), residual, 1e-12 * residual);
    q.data<float>()[7] = -NAN;
    EXPECT_TRUE(std::isnan(orthogonality_residual(gpu.ctx, to_device(gpu.ctx, q))));
  }
}

TEST(PenaltyGradient, GpuAgrees) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  TestBench cpu;
  GpuBench gpu;
  const auto run = [](const ExecContext& ctx) {
    const Tensor q = gaussian(ctx, {3, 150, 70}, DType::f32, 1), dq = gaussian(ctx, {3, 150, 70}, DType::f32, 2);
    std::vector<double> result{penalty_gradient(ctx, q, 0.3, dq)};
    for (double v : to_doubles(dq)) result.push_back(v);
    return result;
  };
  const std::vector<double> want = run(cpu.ctx), got = run(gpu.ctx);
  EXPECT_NEAR(got[0], want[0], 1e-5 * want[0]);
  EXPECT_LE(normalised_error(got, want), 1e-11);
}

}  // namespace
}  // namespace ermoe::testing

#endif
