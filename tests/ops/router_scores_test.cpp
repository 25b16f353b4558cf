// The two scores of eigenbasis routing and the projection under them.
#include "ops/basis_projection.h"
#include "ops/context_cosine.h"
#include "ops/subspace_cosine.h"
#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

Tensor mean_of(const ExecContext& ctx, DType dtype, int64_t width, uint64_t key) {
  return random_input(ctx, {{width}}, master_of(dtype), RngKey{key});
}

Variable project(const ExecContext& ctx, Vars x) { return basis_projection(ctx, x[0], x[1], {}).z; }
Variable project_centered(const ExecContext& ctx, Vars x) {
  return basis_projection(ctx, x[0], x[1], mean_of(ctx, x[0].dtype(), x[0].shape()[1], 31)).z;
}
Variable context(const ExecContext& ctx, Vars x) { return context_cosine(ctx, x[0], x[1], x[2], {}, {}); }
Variable context_centered(const ExecContext& ctx, Vars x) {
  const int64_t width = x[0].shape()[1];
  return context_cosine(ctx, x[0], x[1], x[2], mean_of(ctx, x[0].dtype(), width, 31), mean_of(ctx, x[0].dtype(), width, 32));
}
Variable subspace(const ExecContext& ctx, Vars x) { return subspace_cosine(ctx, x[0], x[1], {}); }
Variable subspace_centered(const ExecContext& ctx, Vars x) {
  return subspace_cosine(ctx, x[0], x[1], mean_of(ctx, x[0].dtype(), x[0].shape()[1], 31));
}

const std::vector<OpInput> ragged = {{.shape = {11, 7}}, {.shape = {5, 3, 7}}};
const std::vector<OpInput> ragged_pair = {{.shape = {11, 7}}, {.shape = {11, 7}}, {.shape = {5, 3, 7}}};
const std::vector<OpInput> large_pair = {{.shape = {130, 19}}, {.shape = {130, 19}}, {.shape = {8, 5, 19}}};

OP_CASES(BasisProjectionOp, {.name = "plain", .inputs = ragged, .run = project},
         {.name = "centered", .inputs = ragged, .run = project_centered},
         {.name = "no_token", .inputs = {{.shape = {0, 7}}, {.shape = {2, 3, 7}}}, .run = project_centered});

#if defined(ERMOE_WITH_CUDA)
TEST(BasisProjection, GpuAgreesOnRouterShapes) {
  ERMOE_NEEDS_GPU(
      expect_gpu_agrees({.name = "router", .inputs = {{.shape = {788, 384}}, {.shape = {8, 48, 384}}}, .run = project_centered}));
}

/// What bf16 tokens around a long mean come to: centred coordinates and the basis' gradient.
struct Centred {
  std::vector<double> z, whole, basis;  // z alone, z + shift, gradient
};

/// `dtype` computes on values that bf16 holds, so that it makes no difference to the inputs.
Centred project_around_long_mean(const ExecContext& outer, DType dtype) {
  const int64_t N = 640, D = 96, E = 3, R = 24;
  Tape tape;
  const ExecContext ctx = outer.with_tape(&tape);
  TestBench host;
  const Tensor mean = random_input(host.ctx, {{D}}, DType::f32, RngKey{1});
  for (float& m : mean.span<float>()) m *= 30;
  const Tensor x = random_input(host.ctx, {{N, D}}, DType::f32, RngKey{2}),
               basis = random_input(host.ctx, {{E, R, D}}, DType::f32, RngKey{3});
  for (int64_t i = 0; i < N * D; ++i) x.data<float>()[i] += mean.data<float>()[i % D];
  const auto rounded = [&](const Tensor& wide) {
    const Tensor narrow = ctx.empty(wide.shape(), DType::bf16), out = ctx.empty(wide.shape(), dtype);
    convert(to_device(ctx, wide), narrow);
    convert(narrow, out);
    return tape.leaf(out);
  };
  const Variable tokens = rounded(x), rows = rounded(basis);
  const auto [z, shift] = basis_projection(ctx, tokens, rows, to_device(ctx, mean));
  tape.backward(ctx, z, rounded(random_input(host.ctx, {{N, E, R}}, DType::f32, RngKey{4})).value);
  Centred result{to_doubles(z.value), to_doubles(z.value), to_doubles(tape.grad(rows))};
  const std::vector<double> rest = shift.defined() ? to_doubles(shift) : std::vector<double>(static_cast<size_t>(E * R));
  for (size_t i = 0; i < result.whole.size(); ++i) result.whole[i] += rest[i % rest.size()];
  return result;
}

TEST(BasisProjection, GpuCentresInBf16WhereTheMeanIsLong) {
  ERMOE_NEEDS_GPU(static_cast<void>(0));
  TestBench cpu;
  GpuBench gpu;
  const Centred want = project_around_long_mean(cpu.ctx, DType::f32), f32 = project_around_long_mean(gpu.ctx, DType::f32);
  const Centred got = project_around_long_mean(gpu.ctx, DType::bf16);
  EXPECT_LE(normalised_error(f32.whole, want.whole), 1e-9);
  EXPECT_LE(normalised_error(f32.basis, want.basis), 1e-9);
  EXPECT_LE(dissimilarity(got.whole, want.whole), 1e-5);
  EXPECT_GT(dissimilarity(got.z, want.z), 1e-5);  // without the shift
  EXPECT_LE(dissimilarity(got.basis, want.basis), 1e-5);
}
#endif

OP_CASES(ContextCosineOp, {.name = "plain", .inputs = ragged_pair, .run = context},
         {.name = "packs", .inputs = {{.shape = {37, 64}}, {.shape = {37, 64}}, {.shape = {5, 16, 64}}}, .run = context_centered},
         {.name = "centered", .inputs = ragged_pair, .run = context_centered},
         {.name = "large", .inputs = large_pair, .run = context_centered},
         {.name = "rank_two", .inputs = {{.shape = {4, 6}}, {.shape = {4, 6}}, {.shape = {3, 2, 6}}}, .run = context});

OP_CASES(SubspaceCosineOp, {.name = "plain", .inputs = ragged, .run = subspace},
         {.name = "centered", .inputs = ragged, .run = subspace_centered},
         {.name = "packs", .inputs = {{.shape = {19, 64}}, {.shape = {9, 16, 64}}}, .run = subspace_centered},
         {.name = "large", .inputs = {large_pair[0], large_pair[2]}, .run = subspace_centered});

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

TEST(RouterScores, RefuseWidthsThatDiffer) {
  TestBench bench;
  const Variable x(random_input(bench.ctx, {{2, 4}}, DType::f32, RngKey{1})), c(random_input(bench.ctx, {{2, 5}}, DType::f32, RngKey{1}));
  const Variable basis(random_input(bench.ctx, {{3, 2, 5}}, DType::f32, RngKey{2}));
  expect_error([&] { context_cosine(bench.ctx, x, c, basis, {}, {}); }, {"[context_cosine]", "(2, 4)", "(2, 5)"});
  expect_error([&] { subspace_cosine(bench.ctx, x, basis, {}); }, {"[basis_projection]", "(2, 4)", "(3, 2, 5)"});
  expect_error([&] { subspace_cosine(bench.ctx, c, basis, x.value); }, {"[basis_projection]", "mean", "(2, 4)"});
}

TEST(SubspaceCosine, BitsDoNotDependOnTheNumberOfThreads) {  // enough tokens for several threads, a GEMM that BLAS keeps in one
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {2048, 17}}, {.shape = {7, 1, 17}}}, .run = subspace_centered});
}

}  // namespace
}  // namespace ermoe::testing
