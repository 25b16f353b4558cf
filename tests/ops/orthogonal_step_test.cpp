#include "tests/ops/expect_error.h"
#include "tests/ops/stiefel_case.h"

namespace ermoe::testing {
namespace {

using StiefelStep = OfEachMethod;
TEST_P(StiefelStep, StaysOnTheManifold) {
  for (const Shape& shape : {Shape{1, 1}, Shape{7, 7}, Shape{3, 13, 5}, Shape{2, 3, 96, 64}, Shape{1, 300, 150}}) {
    TestBench bench;
    const Tensor q = orthonormal(bench.ctx, shape, DType::f32, 1), q64 = orthonormal(bench.ctx, shape, DType::f64, 1);
    for (uint64_t step = 0; step < 20; ++step) {
      stiefel_step(bench.ctx, q, gaussian(bench.ctx, shape, DType::f32, 100 + step), 1e-2, GetParam());
      stiefel_step(bench.ctx, q64, gaussian(bench.ctx, shape, DType::f64, 100 + step), 1e-2, GetParam());
      ASSERT_LE(orthogonality_residual(bench.ctx, q), promise) << shape.str() << " step " << step;
      ASSERT_LE(orthogonality_residual(bench.ctx, q64), 1e-11) << shape.str() << " step " << step;
    }
  }
}

TEST_P(StiefelStep, IsTheTangentStepToFirstOrder) {
  const int64_t m = 12, n = 5;
  TestBench bench;
  const Tensor start = orthonormal(bench.ctx, {m, n}, DType::f64, 1), direction = gaussian(bench.ctx, {m, n}, DType::f64, 2);
  const auto error = [&](double lr) {
    const Tensor q = start.clone();
    stiefel_step(bench.ctx, q, direction, lr, GetParam());
    return largest_difference(to_doubles(q), tangent_step(to_doubles(start), to_doubles(direction), m, n, lr));
  };
  const double coarse = error(1e-3), fine = error(5e-4);
  EXPECT_LT(coarse, 1e-4);
  EXPECT_NEAR(coarse / fine, 4.0, 0.1);  // what is left is of second order
}

TEST_P(StiefelStep, GoesDownhill) {
  // min <c, q> over orthonormal q is -Σ singular values of c; for c = orthonormal columns it is -n, at q = -c.
  const int64_t m = 20, n = 6;
  TestBench bench;
  const Tensor c = orthonormal(bench.ctx, {m, n}, DType::f64, 1), q = orthonormal(bench.ctx, {m, n}, DType::f64, 2);
  for (int step = 0; step < 400; ++step) stiefel_step(bench.ctx, q, c, 0.1, GetParam());
  double value = 0;
  for (int64_t i = 0; i < m * n; ++i) value += c.data<double>()[i] * q.data<double>()[i];
  EXPECT_NEAR(value, -static_cast<double>(n), 1e-6);
}

TEST_P(StiefelStep, TreatsEachMatrixOfABatchAlone) {
  omp_set_num_threads(2);
  TestBench bench;
  const Shape shape{4, 40, 24};
  const Tensor q = orthonormal(bench.ctx, shape, DType::f64, 1), direction = gaussian(bench.ctx, shape, DType::f64, 2), all = q.clone();
  stiefel_step(bench.ctx, all, direction, 0.01, GetParam());
  for (int64_t e = 0; e < 4; ++e) {
    const Tensor one = q.at(e).clone();
    stiefel_step(bench.ctx, one, direction.at(e), 0.01, GetParam());
    EXPECT_LE(largest_difference(to_doubles(one), to_doubles(all.at(e))), 1e-15) << e;
  }
}

TEST_P(StiefelStep, BitsDoNotDependOnTheNumberOfThreads) {
  TestBench bench;
  const Shape shape{5, 130, 67};
  const Tensor start = orthonormal(bench.ctx, shape, DType::f32, 1), direction = gaussian(bench.ctx, shape, DType::f32, 2);
  std::vector<std::vector<double>> runs;
  for (int threads : {1, 2, 5}) {
    omp_set_num_threads(threads);
    const Tensor q = start.clone();
    stiefel_step(bench.ctx, q, direction, 0.01, GetParam());
    runs.push_back(to_doubles(q));
  }
  EXPECT_EQ(runs[0], runs[1]);
  EXPECT_EQ(runs[0], runs[2]);
}

TEST_P(StiefelStep, ANaNDirectionEndsAndShows) {
  TestBench bench;
  const Tensor q = orthonormal(bench.ctx, {9, 4}, DType::f32, 1), direction = gaussian(bench.ctx, {9, 4}, DType::f32, 2);
  direction.data<float>()[11] = NAN;
  stiefel_step(bench.ctx, q, direction, 1e-3, GetParam());
  EXPECT_TRUE(std::isnan(orthogonality_residual(bench.ctx, q)));
}

TEST_P(StiefelStep, StepsOfAnyLengthComeBack) {
  // All entries ±1: one singular value is √(mn), as in Adam's first step without a warm-up.
  TestBench bench;
  for (double lr : {1e-3, 7e-3, 1e-2, 0.1, 10.0}) {
    const Tensor q = orthonormal(bench.ctx, {2, 192, 64}, DType::f32, 1), direction = gaussian(bench.ctx, {2, 192, 64}, DType::f32, 2);
    for (float& v : direction.span<float>()) v = 1.0f;
    stiefel_step(bench.ctx, q, direction, lr, GetParam());
    EXPECT_LE(orthogonality_residual(bench.ctx, q), promise) << lr;
  }
}

TEST_P(StiefelStep, KeepsATwin) {
  TestBench bench;
  const Shape shape{3, 40, 24};
  const Tensor q = orthonormal(bench.ctx, shape, DType::f32, 1), alone = q.clone(), twin = bench.ctx.empty(shape, DType::bf16);
  convert(q, twin);
  for (uint64_t step = 0; step < 3; ++step) {
    const Tensor direction = gaussian(bench.ctx, shape, DType::f32, 2 + step);
    stiefel_step(bench.ctx, q, direction, 1e-2, GetParam(), twin);
    stiefel_step(bench.ctx, alone, direction, 1e-2, GetParam());
    EXPECT_EQ(to_doubles(q), to_doubles(alone));
    EXPECT_EQ(to_doubles(twin), bf16_values(q));
  }
  copy(gaussian(bench.ctx, shape, DType::f32, 9), q);
  retract(bench.ctx, q, GetParam(), twin);
  EXPECT_EQ(to_doubles(twin), bf16_values(q));
}

TEST_P(StiefelStep, TakesADirectionInBf16) {
  TestBench bench;
  const Shape shape{3, 40, 24};
  for (const DType dtype : {DType::f32, DType::f64}) {
    const Tensor q = orthonormal(bench.ctx, shape, dtype, 1), other = q.clone();
    const Tensor direction = gaussian(bench.ctx, shape, DType::bf16, 2), widened = bench.ctx.empty(shape, dtype);
    convert(direction, widened);
    stiefel_step(bench.ctx, q, direction, 1e-2, GetParam());
    stiefel_step(bench.ctx, other, widened, 1e-2, GetParam());
    EXPECT_EQ(to_doubles(q), to_doubles(other));
    EXPECT_EQ(direction_dtype(bench.ctx, q, GetParam(), {}), dtype);
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, StiefelStep, ::testing::ValuesIn(methods), name_of_method);

/// Adam's direction from a gradient whose mean turns slowly, as that of a minibatch does.
struct AdamDirections {
  AdamDirections(const ExecContext& ctx, Shape shape) : direction(ctx.empty(shape, DType::f32)) {
    for (uint64_t i = 0; i < 9; ++i) bank.push_back(gaussian(ctx, shape, DType::f32, 1000 + i));
    first.resize(static_cast<size_t>(shape.numel()), 0.0f);
    second = first;
  }

  const Tensor& next() {
    ++step;
    const auto t = static_cast<double>(step);
    const float c = static_cast<float>(std::cos(t / 700)), s = static_cast<float>(std::sin(t / 700));
    const float *a = bank[0].data<float>(), *b = bank[1].data<float>(),
                *noise = bank[2 + static_cast<size_t>(step * step % 7)].data<float>();
    const auto correction1 = static_cast<float>(1 - std::pow(0.9, t)), correction2 = static_cast<float>(1 - std::pow(0.999, t));
    float* to = direction.data<float>();
#pragma omp simd
    for (size_t i = 0; i < first.size(); ++i) {
      const float g = c * a[i] + s * b[i] + 2 * noise[i];
      first[i] = 0.9f * first[i] + 0.1f * g;
      second[i] = 0.999f * second[i] + 0.001f * g * g;
      to[i] = first[i] / correction1 / (std::sqrt(second[i] / correction2) + 1e-8f);
    }
    return direction;
  }

  Tensor direction;
  std::vector<Tensor> bank;
  std::vector<float> first, second;
  int64_t step = 0;
};

class TenThousandSteps : public ::testing::TestWithParam<Shape> {
  OneThread one_thread_;
};

TEST_P(TenThousandSteps, KeepThePromiseWithoutWarmUp) {
  TestBench bench;
  const Tensor q = orthonormal(bench.ctx, GetParam(), DType::f32, 1);
  AdamDirections adam(bench.ctx, GetParam());
  double worst = 0;
  for (int step = 0; step < 10000; ++step) {
    stiefel_step(bench.ctx, q, adam.next(), 1e-3, StiefelMethod::newton_schulz);
    worst = std::max(worst, orthogonality_residual(bench.ctx, q));
    ASSERT_LE(worst, promise) << "step " << step;
  }
  RecordProperty("worst", fmt::format("{:.2e}", worst));
}

TEST_P(TenThousandSteps, KeepThePromiseInFreshDirections) {
  TestBench bench;
  const Tensor q = orthonormal(bench.ctx, GetParam(), DType::f32, 1);
  std::vector<Tensor> directions;  // of unit RMS, used over and over on a matrix that has moved on
  for (uint64_t i = 0; i < 37; ++i) directions.push_back(gaussian(bench.ctx, GetParam(), DType::f32, 50 + i));
  for (size_t step = 0; step < 10000; ++step) {
    stiefel_step(bench.ctx, q, directions[step % 37], 1e-3, StiefelMethod::newton_schulz);
    ASSERT_LE(orthogonality_residual(bench.ctx, q), promise) << "step " << step;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, TenThousandSteps, ::testing::Values(Shape{64, 64}, Shape{256, 64}),
                         [](const auto& shape) { return fmt::format("{}x{}", shape.param[0], shape.param[1]); });

TEST(Retract, GramSchmidtAndCholeskyKeepOrthonormalColumnsAsTheyAre) {
  TestBench bench;
  for (StiefelMethod method : {StiefelMethod::gram_schmidt, StiefelMethod::cholesky_qr}) {
    const Tensor q = orthonormal(bench.ctx, {3, 50, 20}, DType::f64, 1);
    for (int64_t i = 0; i < q.numel(); ++i)
      if (i % 3 == 1) q.data<double>()[i] *= -1;  // signs that a plain Householder factorisation would turn
    retract(bench.ctx, q, StiefelMethod::newton_schulz);
    const std::vector<double> before = to_doubles(q);
    retract(bench.ctx, q, method);
    EXPECT_LE(largest_difference(to_doubles(q), before), 1e-12);
  }
}

TEST(Retract, CholeskyQrIsGramSchmidtAndFallsBackOnIt) {
  TestBench bench;
  const Tensor a = gaussian(bench.ctx, {2, 30, 12}, DType::f64, 1), b = a.clone();
  retract(bench.ctx, a, StiefelMethod::gram_schmidt);
  retract(bench.ctx, b, StiefelMethod::cholesky_qr);
  EXPECT_LE(largest_difference(to_doubles(a), to_doubles(b)), 1e-12);

  const Tensor nearly_singular = gaussian(bench.ctx, {30, 12}, DType::f32, 1);
  for (int64_t i = 0; i < 30; ++i) {  // two columns that float's QᵀQ cannot tell apart
    float* row = nearly_singular.data<float>() + i * 12;
    row[1] = row[0] * (1 + (i == 0 ? 1e-5f : 0.0f));
  }
  retract(bench.ctx, nearly_singular, StiefelMethod::cholesky_qr);
  EXPECT_LE(orthogonality_residual(bench.ctx, nearly_singular), promise);
}

TEST(Cayley, SolvesTheFullSystem) {
  const int64_t m = 11, n = 4;
  const double lr = 0.3;
  TestBench bench;
  const Tensor q = orthonormal(bench.ctx, {m, n}, DType::f64, 1), direction = gaussian(bench.ctx, {m, n}, DType::f64, 2);
  const std::vector<double> before = to_doubles(q), a = to_doubles(direction);
  stiefel_step(bench.ctx, q, direction, lr, StiefelMethod::cayley);

  std::vector<double> z = product(before, product(before, a, n, m, n, true), m, n, n);
  for (size_t i = 0; i < z.size(); ++i) z[i] = a[i] - 0.5 * z[i];
  std::vector<double> w(static_cast<size_t>(m * m));  // z qᵀ - q zᵀ
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < m; ++j)
      for (int64_t k = 0; k < n; ++k) {
        const auto ik = static_cast<size_t>(i * n + k), jk = static_cast<size_t>(j * n + k);
        w[static_cast<size_t>(i * m + j)] += z[ik] * before[jk] - before[ik] * z[jk];
      }
  std::vector<double> left = product(w, to_doubles(q), m, m, n), right = product(w, before, m, m, n);
  for (size_t i = 0; i < left.size(); ++i) {
    left[i] = to_doubles(q)[i] + lr / 2 * left[i];
    right[i] = before[i] - lr / 2 * right[i];
  }
  EXPECT_LE(largest_difference(left, right), 1e-13);
}

TEST(PolarProject, FindsTheNearestFromAfar) {
  TestBench bench;
  for (double size : {0.01, 1.0, 300.0}) {
    const Shape shape{3, 40, 16};
    const Tensor q = gaussian(bench.ctx, shape, DType::f64, 1);
    for (double& v : q.span<double>()) v *= size;
    const Tensor before = q.clone();
    polar_project(bench.ctx, q);
    EXPECT_LE(orthogonality_residual(bench.ctx, q), 1e-11);
    for (int64_t e = 0; e < 3; ++e) {  // q is the polar factor where qᵀ·before is symmetric and positive definite
      const std::vector<double> h = product(to_doubles(q.at(e)), to_doubles(before.at(e)), 16, 40, 16, true);
      for (size_t i = 0; i < 16; ++i) {
        EXPECT_GT(h[i * 16 + i], 0);
        for (size_t j = 0; j < i; ++j) EXPECT_NEAR(h[i * 16 + j], h[j * 16 + i], 1e-10 * size);
      }
    }
  }
}

TEST(PolarProject, ProjectsTheAverageOfTwoFactors) {
  TestBench bench;
  const Tensor q = orthonormal(bench.ctx, {2, 96, 48}, DType::f32, 1), other = q.clone();
  for (uint64_t step = 0; step < 10; ++step)
    stiefel_step(bench.ctx, other, gaussian(bench.ctx, {2, 96, 48}, DType::f32, 10 + step), 1e-2, StiefelMethod::newton_schulz);
  for (int64_t i = 0; i < q.numel(); ++i) q.data<float>()[i] = 0.5f * (q.data<float>()[i] + other.data<float>()[i]);
  EXPECT_GT(orthogonality_residual(bench.ctx, q), 1e-3);
  polar_project(bench.ctx, q);
  EXPECT_LE(orthogonality_residual(bench.ctx, q), promise);
}

TEST(PolarProject, SaysThatARankIsMissing) {
  TestBench bench;
  const Tensor q = gaussian(bench.ctx, {10, 4}, DType::f32, 1);
  for (int64_t i = 0; i < 10; ++i) q.data<float>()[i * 4 + 2] = 0;
  expect_error([&] { polar_project(bench.ctx, q); }, {"[polar_project]", "(10, 4)", "rank-deficient"});
}

TEST(OrthogonalityResidual, IsTheLargestEntry) {
  TestBench bench;
  const Tensor q = gaussian(bench.ctx, {3, 17, 5}, DType::f32, 1);
  double expected = 0;
  for (int64_t e = 0; e < 3; ++e) {
    const std::vector<double> values = to_doubles(q.at(e)), gram = product(values, values, 5, 17, 5, true);
    for (size_t i = 0; i < 25; ++i) expected = std::max(expected, std::abs(gram[i] - (i % 6 == 0 ? 1.0 : 0.0)));
  }
  EXPECT_NEAR(orthogonality_residual(bench.ctx, q), expected, 1e-12);
}

TEST(PenaltyGradient, MatchesDifferencesAndAdds) {
  TestBench bench;
  const double lambda = 0.3;
  const Tensor q = gaussian(bench.ctx, {2, 6, 4}, DType::f64, 1), dq = gaussian(bench.ctx, {2, 6, 4}, DType::f64, 2);
  const Tensor before = dq.clone(), ignored = dq.clone();
  penalty_gradient(bench.ctx, q, lambda, dq);
  for (int64_t i = 0; i < q.numel(); ++i) {
    double& v = q.data<double>()[i];
    const double h = 1e-5, kept = v;
    v = kept + h;
    const double up = penalty_gradient(bench.ctx, q, lambda, ignored);
    v = kept - h;
    const double down = penalty_gradient(bench.ctx, q, lambda, ignored);
    v = kept;
    const double added = dq.data<double>()[i] - before.data<double>()[i];
    EXPECT_NEAR((up - down) / (2 * h), added, 1e-6 * std::max(1.0, std::abs(added))) << i;
  }
}

TEST(PenaltyGradient, AddsUpOverMatrices) {
  TestBench bench;
  const Tensor q = gaussian(bench.ctx, {2, 6, 4}, DType::f64, 1), dq = Tensor::zeros(bench.allocator, {2, 6, 4}, DType::f64),
               sum = dq.clone();
  const Tensor penalty = Tensor::zeros(bench.allocator, {1}, DType::f64);
  double expected = 0;
  for (int64_t e : {0, 1}) {
    expected += penalty_gradient(bench.ctx, q.at(e), 0.7, dq.at(e));
    add_penalty_gradient(bench.ctx, q.at(e), 0.7, sum.at(e), penalty);
  }
  EXPECT_DOUBLE_EQ(item<double>(penalty), expected);
  EXPECT_EQ(to_doubles(sum), to_doubles(dq));
  expect_error([&] { add_penalty_gradient(bench.ctx, q, 1, dq, dq); }, {"[penalty_gradient]", "(2, 6, 4)"});
}

TEST(StiefelErrors, NameTheShapes) {
  TestBench bench;
  const Tensor wide = gaussian(bench.ctx, {3, 4, 6}, DType::f32, 1), q = gaussian(bench.ctx, {3, 6, 4}, DType::f32, 1);
  expect_error([&] { stiefel_step(bench.ctx, wide, wide, 1e-3, StiefelMethod::newton_schulz); }, {"[stiefel_step]", "(3, 4, 6)"});
  expect_error([&] { stiefel_step(bench.ctx, q, wide, 1e-3, StiefelMethod::newton_schulz); }, {"(3, 6, 4)", "(3, 4, 6)"});
  expect_error([&] { retract(bench.ctx, Tensor(), StiefelMethod::newton_schulz); }, {"[retract]"});
  const Tensor q64 = gaussian(bench.ctx, {3, 6, 4}, DType::f64, 1), small = gaussian(bench.ctx, {2, 6, 4}, DType::bf16, 1),
               twin = gaussian(bench.ctx, {3, 6, 4}, DType::bf16, 1);
  expect_error([&] { stiefel_step(bench.ctx, q, q64, 1e-3, StiefelMethod::newton_schulz); }, {"[stiefel_step]", "f32", "f64"});
  expect_error([&] { stiefel_step(bench.ctx, q, q, 1e-3, StiefelMethod::newton_schulz, q); }, {"[stiefel_step]", "twin f32"});
  expect_error([&] { direction_dtype(bench.ctx, q, StiefelMethod::newton_schulz, small); }, {"(3, 6, 4)", "twin bf16 (2, 6, 4)"});
  expect_error([&] { retract(bench.ctx, q64, StiefelMethod::newton_schulz, twin); }, {"[retract]", "f64"});
  expect_error([&] { penalty_gradient(bench.ctx, q, 1, wide); }, {"[penalty_gradient]", "(3, 4, 6)"});
}

}  // namespace
}  // namespace ermoe::testing
