// Steps on the Stiefel manifold on a GPU, against the CPU's and against the manifold itself.
#include "tests/ops/stiefel_case.h"

#if defined(ERMOE_WITH_CUDA)

namespace ermoe::testing {
namespace {

using StiefelOnGpu = OfEachMethod;

TEST_P(StiefelOnGpu, TakesTheSameStepAsTheCpuAndStaysOnTheManifold) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  for (const Shape& shape : bearable({Shape{1, 1}, Shape{7, 7}, Shape{3, 13, 5}, Shape{2, 3, 96, 64}, Shape{1, 300, 150},
                                      Shape{2, 260, 257}, Shape{2, 200, 136}, Shape{1, 520, 520}})) {
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
      // Newton-Schulz on a GPU rounds the direction and then the tangent to bf16, 8 bits each; the manifold is kept as above.
      EXPECT_LE(largest_difference(to_doubles(on_gpu), to_doubles(on_cpu)), std::max(5e-5, 2e-2 * longest / 256)) << shape.str();
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
  if (small_sizes()) GTEST_SKIP() << "a large shape";
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
  for (double lr : small_sizes() ? std::vector{1e-3, 10.0} : std::vector{1e-3, 7e-3, 1e-2, 0.1, 10.0}) {
    GpuBench gpu;
    const Tensor q = orthonormal(gpu.ctx, {2, 192, 64}, DType::f32, 1), direction = gpu.ctx.empty({2, 192, 64}, DType::f32);
    fill(direction, 1);
    stiefel_step(gpu.ctx, q, direction, lr, GetParam());
    EXPECT_LE(orthogonality_residual(gpu.ctx, q), promise) << lr;
  }
}

/// On every way that a step may take: one update on the tensor cores, several in float, no tensor cores at all.
TEST_P(StiefelOnGpu, KeepsATwin) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  for (const Shape& shape : bearable({Shape{2, 96, 64}, Shape{2, 200, 136}, Shape{2, 520, 520}, Shape{3, 13, 5}, Shape{2, 260, 131}}))
    for (const double lr : small_sizes() ? std::vector{0.1} : std::vector{1e-3, 0.1, 10.0}) {
      GpuBench gpu;
      const Tensor q = orthonormal(gpu.ctx, shape, DType::f32, 1), alone = q.clone(), twin = gpu.ctx.empty(shape, DType::bf16);
      convert(q, twin);
      for (uint64_t step = 0; step < 2; ++step) {
        const Tensor direction = gaussian(gpu.ctx, shape, DType::f32, 2 + step);
        if (step == 0) fill(direction.at(0), 1);  // one matrix of the batch goes on for longer
        stiefel_step(gpu.ctx, q, direction, lr, GetParam(), twin);
        stiefel_step(gpu.ctx, alone, direction, lr, GetParam());
        EXPECT_EQ(to_doubles(q), to_doubles(alone)) << shape.str() << " " << lr;
        EXPECT_EQ(to_doubles(twin), bf16_values(q)) << shape.str() << " " << lr;
      }
      const Tensor unset = gpu.ctx.empty(shape, DType::bf16);
      retract(gpu.ctx, q, GetParam(), unset);
      EXPECT_EQ(to_doubles(unset), bf16_values(q)) << shape.str();
      EXPECT_LE(orthogonality_residual(gpu.ctx, q), promise) << shape.str() << " " << lr;
    }
}

INSTANTIATE_TEST_SUITE_P(Methods, StiefelOnGpu, ::testing::ValuesIn(methods), name_of_method);

/// Widths and heights that no tile of the residual divides.
TEST(NewtonSchulz, GpuTakesRaggedTiles) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  for (const Shape& shape : bearable({Shape{3, 75, 72}, Shape{320, 200}, Shape{2, 520, 136}, Shape{3, 333, 200}, Shape{500, 392}})) {
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
  if (small_sizes()) GTEST_SKIP() << "a large shape";
  const Shape shape{8, 1536, 384};
  GpuBench gpu;
  const Tensor q = orthonormal(gpu.ctx, shape, DType::f32, 1), one = q.at(5).clone();
  const Tensor direction = gaussian(gpu.ctx, shape, DType::f32, 2);
  stiefel_step(gpu.ctx, q, direction, 1e-3, StiefelMethod::newton_schulz);
  stiefel_step(gpu.ctx, one, direction.at(5), 1e-3, StiefelMethod::newton_schulz);
  EXPECT_LE(orthogonality_residual(gpu.ctx, q), promise);
  // Products of other shapes may add up in another order, so that bf16 rounds a tangent below 8 to a neighbour: 1/32 away.
  EXPECT_LE(largest_difference(to_doubles(q.at(5)), to_doubles(one)), 1.1e-3 / 32);
}

/// A direction in bf16 is read as it is where the step on the tensor cores fits, else widened: the same bits as from its f32 self.
TEST(NewtonSchulz, GpuTakesADirectionInBf16) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  for (const Shape& shape : bearable({Shape{3, 75, 72}, Shape{2, 520, 136}, Shape{4, 1536, 384}, Shape{2, 90, 40}, Shape{2, 260, 131}})) {
    GpuBench gpu;
    const Tensor q = orthonormal(gpu.ctx, shape, DType::f32, 1), other = q.clone(), twin = gpu.ctx.empty(shape, DType::bf16);
    convert(q, twin);
    const bool fits = shape[-1] >= 64 && shape[-1] % 8 == 0;
    EXPECT_EQ(direction_dtype(gpu.ctx, q, StiefelMethod::newton_schulz, twin), fits ? DType::bf16 : DType::f32) << shape.str();
    EXPECT_EQ(direction_dtype(gpu.ctx, q, StiefelMethod::newton_schulz, {}), DType::f32);
    EXPECT_EQ(direction_dtype(gpu.ctx, q, StiefelMethod::cayley, twin), DType::f32);
    for (uint64_t step = 0; step < 3; ++step) {
      const Tensor narrow = gaussian(gpu.ctx, shape, DType::bf16, 2 + step), wide = gpu.ctx.empty(shape, DType::f32);
      convert(narrow, wide);
      stiefel_step(gpu.ctx, q, narrow, 1e-2, StiefelMethod::newton_schulz, twin);
      stiefel_step(gpu.ctx, other, wide, 1e-2, StiefelMethod::newton_schulz);
      EXPECT_EQ(to_doubles(q), to_doubles(other)) << shape.str();
      EXPECT_EQ(to_doubles(twin), bf16_values(q)) << shape.str();
    }
  }
}

/// What bf16 may do to a step: 2⁻⁸ of the direction's length, from the rounding of the direction, q, the products and the tangent,
/// which is at most 2⁻⁸ of each element and half of that in the mean. It stays on the manifold as if nothing had been rounded.
TEST(NewtonSchulz, GpuStepInBf16IsNearThatOfFloat64) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  const double lr = 1e-3;
  for (const Shape& shape : bearable({Shape{768, 256}, Shape{256, 256}, Shape{200, 72}})) {
    TestBench cpu;
    GpuBench gpu;
    const Tensor q = orthonormal(gpu.ctx, shape, DType::f32, 1), twin = gpu.ctx.empty(shape, DType::bf16);
    const Tensor exact = cpu.ctx.empty(shape, DType::f64), direction = gaussian(cpu.ctx, shape, DType::f64, 2);
    convert(q, twin);
    convert(q.to(cpu.allocator), exact);
    stiefel_step(cpu.ctx, exact, direction, lr, StiefelMethod::newton_schulz);
    stiefel_step(gpu.ctx, q, gaussian(gpu.ctx, shape, DType::bf16, 2), lr, StiefelMethod::newton_schulz, twin);
    const auto got = to_doubles(q), want = to_doubles(exact), a = to_doubles(direction);
    double error = 0, length = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      error += (got[i] - want[i]) * (got[i] - want[i]);
      length += a[i] * a[i];
    }
    const double left = static_cast<double>(shape[1]) * promise / 2;  // what a retraction may leave
    EXPECT_LE(std::sqrt(error), lr * std::sqrt(length) / 256 + left) << shape.str();
    for (uint64_t step = 0; step < (small_sizes() ? 3 : 50); ++step) {
      stiefel_step(gpu.ctx, q, gaussian(gpu.ctx, shape, DType::bf16, 3 + step), lr, StiefelMethod::newton_schulz, twin);
      ASSERT_LE(orthogonality_residual(gpu.ctx, q), promise) << shape.str() << " step " << step;
    }
  }
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
