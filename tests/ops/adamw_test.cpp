#include "ops/adamw.h"

#include "tests/bench.h"

#include <gtest/gtest.h>

namespace ermoe::testing {
namespace {

/// AdamW as its paper writes it, one scalar at a time.
struct ScalarAdam {
  double p, m = 0, v = 0;
  void step(double g, int t, double lr, double decay) {
    m = 0.9 * m + 0.1 * g;
    v = 0.999 * v + 0.001 * g * g;
    const double m_hat = m / (1 - std::pow(0.9, t)), v_hat = v / (1 - std::pow(0.999, t));
    p = p - lr * decay * p - lr * m_hat / (std::sqrt(v_hat) + 1e-8);
  }
};

TEST(Adamw, FollowsTheScalarRuleWithChangingGradients) {
  TestBench bench;
  const int64_t n = 37;
  const Tensor p = random_input(bench.ctx, {Shape{n}}, DType::f64, RngKey{1});
  const Tensor m = Tensor::zeros(bench.allocator, {n}, DType::f64), v = Tensor::zeros(bench.allocator, {n}, DType::f64);
  std::vector<ScalarAdam> oracle;
  for (double start : p.span<double>()) oracle.push_back({start});
  for (int t = 1; t <= 20; ++t) {
    const Tensor g = random_input(bench.ctx, {Shape{n}}, DType::f64, RngKey{100 + static_cast<uint64_t>(t)});
    const double scale = 1.0 / t, lr = 1e-2 * t, decay = 0.1;
    AdamDims step{
        .lr = lr, .decay = decay, .grad_scale = scale, .correction1 = 1 - std::pow(0.9, t), .correction2 = 1 - std::pow(0.999, t)};
    adamw_step(bench.ctx, step, p, g, m, v);
    for (int64_t i = 0; i < n; ++i) oracle[static_cast<size_t>(i)].step(scale * g.data<double>()[i], t, lr, decay);
  }
  for (int64_t i = 0; i < n; ++i)
    EXPECT_NEAR(p.data<double>()[i], oracle[static_cast<size_t>(i)].p, 1e-12 * std::abs(oracle[static_cast<size_t>(i)].p));
}

TEST(Adamw, DirectionIsTheStepWithoutDecay) {
  TestBench bench;
  const int64_t n = 11;
  const Tensor p = random_input(bench.ctx, {Shape{n}}, DType::f64, RngKey{1}), before = p.clone();
  const Tensor g = random_input(bench.ctx, {Shape{n}}, DType::f64, RngKey{2}), direction = bench.ctx.empty({n}, DType::f64);
  const auto zeros = [&] { return Tensor::zeros(bench.allocator, {n}, DType::f64); };
  const AdamDims step{.lr = 0.5, .correction1 = 0.1, .correction2 = 0.001};
  adamw_step(bench.ctx, step, p, g, zeros(), zeros());
  adam_direction(bench.ctx, step, g, zeros(), zeros(), direction);
  for (int64_t i = 0; i < n; ++i) EXPECT_NEAR(before.data<double>()[i] - 0.5 * direction.data<double>()[i], p.data<double>()[i], 1e-14);
}

TEST(Adamw, NormSeesANotANumberAndMatchesAPlainSum) {
  TestBench bench;
  const Tensor t = random_input(bench.ctx, {Shape{20'003}}, DType::f32, RngKey{3});
  double sum = 0;
  for (float x : t.span<float>()) sum += static_cast<double>(x) * x;
  EXPECT_NEAR(squared_norm(bench.ctx, t), sum, 1e-9 * sum);
  t.data<float>()[777] = NAN;
  EXPECT_TRUE(std::isnan(squared_norm(bench.ctx, t)));
}

}  // namespace
}  // namespace ermoe::testing
