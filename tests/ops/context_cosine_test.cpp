#include "ops/context_cosine.h"

#include "ops/basis_projection.h"
#include "ops/cosine.h"
#include "tests/ops/expect_error.h"
#include "tests/ops/score_inputs.h"

namespace ermoe::testing {
namespace {

Variable context(const ExecContext& ctx, Vars x) { return context_cosine(ctx, x[0], x[1], x[2], {}, {}); }
Variable context_centered(const ExecContext& ctx, Vars x) {
  const int64_t width = x[0].shape()[1];
  return context_cosine(ctx, x[0], x[1], x[2], mean_of(ctx, x[0].dtype(), width, 31), mean_of(ctx, x[0].dtype(), width, 32));
}

OP_CASES(ContextCosineOp, {.name = "plain", .inputs = ragged_pair, .run = context},
         {.name = "packs", .inputs = {{.shape = {37, 64}}, {.shape = {37, 64}}, {.shape = {5, 16, 64}}}, .run = context_centered},
         {.name = "centered", .inputs = ragged_pair, .run = context_centered},
         {.name = "rows_that_share_columns",
          .inputs = {{.shape = {29, 8}}, {.shape = {29, 8}}, {.shape = {4, 24, 8}}},
          .run = context_centered},
         {.name = "no_token", .inputs = {{.shape = {0, 7}}, {.shape = {0, 7}}, {.shape = {2, 3, 7}}}, .run = context_centered},
         {.name = "large", .inputs = large_pair, .run = context_centered},
         {.name = "rank_two", .inputs = {{.shape = {4, 6}}, {.shape = {4, 6}}, {.shape = {3, 2, 6}}}, .run = context});

TEST(ContextCosine, WithACompleteOrthonormalBasisEveryExpertScoresTheSame) {
  TestBench bench;
  // Reflections I - 2vvᵀ are orthogonal matrices.
  Tensor basis = bench.ctx.empty({3, 4, 4}, DType::f64);
  for (int64_t e = 0; e < 3; ++e) {
    const Tensor v = random_input(bench.ctx, {{4}}, DType::f64, RngKey{7}.fold(static_cast<uint64_t>(e)));
    double norm = 0;
    for (double c : v.span<double>()) norm += c * c;
    for (int64_t i = 0; i < 4; ++i)
      for (int64_t j = 0; j < 4; ++j)
        basis.data<double>()[(e * 4 + i) * 4 + j] = (i == j ? 1.0 : 0.0) - 2 * v.data<double>()[i] * v.data<double>()[j] / norm;
  }
  const Variable x(random_input(bench.ctx, {{9, 4}}, DType::f64, RngKey{1})), c(random_input(bench.ctx, {{9, 4}}, DType::f64, RngKey{2}));
  const Tensor s = context_cosine(bench.ctx, x, c, Variable(basis), {}, {}).value;
  for (int64_t n = 0; n < 9; ++n)
    for (int64_t e = 1; e < 3; ++e) EXPECT_NEAR(s.data<double>()[n * 3 + e], s.data<double>()[n * 3], 1e-14);
}

TEST(ContextCosine, IsTheCosineOfItsProjections) {
  TestBench bench;
  const Tensor ds = random_input(bench.ctx, {{11, 5}}, DType::f64, RngKey{6}), mean = mean_of(bench.ctx, DType::f64, 7, 31);
  const auto gradients = [&](auto&& score) {
    Tape tape;
    const ExecContext ctx = bench.ctx.with_tape(&tape);
    std::vector<Variable> leaves;
    for (size_t i = 0; i < ragged_pair.size(); ++i) leaves.push_back(tape.leaf(random_input(ctx, ragged_pair[i], DType::f64, RngKey{i})));
    tape.backward(ctx, score(ctx, leaves), ds);
    std::vector<double> all;
    for (const Variable& leaf : leaves)
      for (double d : to_doubles(tape.grad(leaf))) all.push_back(d);
    return all;
  };
  const auto fused = gradients([&](const ExecContext& ctx, Vars v) { return context_cosine(ctx, v[0], v[1], v[2], mean, {}); });
  const auto composed = gradients([&](const ExecContext& ctx, Vars v) {
    const Projection own = basis_projection(ctx, v[0], v[2], mean), context = basis_projection(ctx, v[1], v[2], {});
    return cosine(ctx, own.z, context.z, own.shift, context.shift);
  });
  EXPECT_LE(normalised_error(fused, composed), 1e-28);
}

#if defined(ERMOE_WITH_CUDA)
TEST(ContextCosine, GpuAgreesOnRouterShapes) {
  ERMOE_NEEDS_GPU(expect_gpu_agrees(
      {.name = "router", .inputs = {{.shape = {788, 384}}, {.shape = {788, 384}}, {.shape = {8, 48, 384}}}, .run = context_centered}));
}
#endif

TEST(ContextCosine, RefusesWidthsThatDiffer) {
  TestBench bench;
  const Variable x(random_input(bench.ctx, {{2, 4}}, DType::f32, RngKey{1})), c(random_input(bench.ctx, {{2, 5}}, DType::f32, RngKey{1}));
  const Variable basis(random_input(bench.ctx, {{3, 2, 5}}, DType::f32, RngKey{2}));
  expect_error([&] { context_cosine(bench.ctx, x, c, basis, {}, {}); }, {"[context_cosine]", "(2, 4)", "(2, 5)"});
}

}  // namespace
}  // namespace ermoe::testing
