#include "ops/subspace_cosine.h"

#include "tests/ops/expect_error.h"
#include "tests/ops/score_inputs.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

Variable subspace(const ExecContext& ctx, Vars x) { return subspace_cosine(ctx, x[0], x[1], {}); }
Variable subspace_centered(const ExecContext& ctx, Vars x) {
  return subspace_cosine(ctx, x[0], x[1], mean_of(ctx, x[0].dtype(), x[0].shape()[1], 31));
}

OP_CASES(SubspaceCosineOp, {.name = "plain", .inputs = ragged, .run = subspace},
         {.name = "centered", .inputs = ragged, .run = subspace_centered},
         {.name = "packs", .inputs = {{.shape = {19, 64}}, {.shape = {9, 16, 64}}}, .run = subspace_centered},
         {.name = "large", .inputs = {large_pair[0], large_pair[2]}, .run = subspace_centered});

TEST(SubspaceCosine, IsOneInsideTheSubspaceAndZeroBesideIt) {
  TestBench bench;
  const std::vector<double> axes = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1};  // experts: axes 0, 1 and axes 2, 3
  const std::vector<double> tokens = {3, -4, 0, 0, 0, 0, 0, 2, 1, 1, 1, 1, 0, 0, 0, 0};
  const Tensor s = subspace_cosine(bench.ctx, Variable(Tensor::from<double>(bench.allocator, {4, 4}, tokens)),
                                   Variable(Tensor::from<double>(bench.allocator, {2, 2, 4}, axes)), {})
                       .value;
  const std::vector<double> expected = {1, 0, 0, 1, std::sqrt(0.5), std::sqrt(0.5), 0, 0};
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(s.data<double>()[i], expected[i], 1e-15) << i;
}

TEST(SubspaceCosine, AZeroTokenHasNoGradient) {
  TestBench bench;
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  Tensor x = random_input(ctx, {{2, 4}}, DType::f32, RngKey{1});
  std::fill_n(x.data<float>(), 4, 0.0f);
  const Variable token = tape.leaf(x), basis = tape.leaf(random_input(ctx, {{3, 2, 4}}, DType::f32, RngKey{2}));
  const Variable s = subspace_cosine(ctx, token, basis, {});
  tape.backward(ctx, s, random_input(ctx, {{2, 3}}, DType::f32, RngKey{3}));
  for (int64_t i = 0; i < 8; ++i) EXPECT_EQ(tape.grad(token).data<float>()[i] != 0.0f, i >= 4) << i;
  const Tensor gradient = tape.grad(basis);
  for (const float v : gradient.span<float>()) EXPECT_TRUE(std::isfinite(v));
}

TEST(SubspaceCosine, RefusesWidthsThatDiffer) {
  TestBench bench;
  const Variable x(random_input(bench.ctx, {{2, 4}}, DType::f32, RngKey{1})), c(random_input(bench.ctx, {{2, 5}}, DType::f32, RngKey{1}));
  const Variable basis(random_input(bench.ctx, {{3, 2, 5}}, DType::f32, RngKey{2}));
  expect_error([&] { subspace_cosine(bench.ctx, x, basis, {}); }, {"[basis_projection]", "(2, 4)", "(3, 2, 5)"});
  expect_error([&] { subspace_cosine(bench.ctx, c, basis, x.value); }, {"[basis_projection]", "mean", "(2, 4)"});
}

TEST(SubspaceCosine, BitsDoNotDependOnTheNumberOfThreads) {  // enough tokens for several threads, a GEMM that BLAS keeps in one
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {2048, 17}}, {.shape = {7, 1, 17}}}, .run = subspace_centered});
}

}  // namespace
}  // namespace ermoe::testing
