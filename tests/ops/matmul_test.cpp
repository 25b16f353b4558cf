#include "ops/matmul.h"

#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

template <Trans ta, Trans tb>
Variable run(const ExecContext& ctx, Vars x) {
  return matmul(ctx, x[0], x[1], ta, tb);
}
constexpr Trans no = Trans::no, yes = Trans::yes;

OP_CASES(MatmulOp, {.name = "one", .inputs = {{.shape = {1, 1}}, {.shape = {1, 1}}}, .run = run<no, no>},
         {.name = "plain", .inputs = {{.shape = {2, 3, 5, 7}}, {.shape = {2, 3, 7, 9}}}, .run = run<no, no>},
         {.name = "left", .inputs = {{.shape = {3, 7, 5}}, {.shape = {3, 7, 9}}}, .run = run<yes, no>},
         {.name = "right", .inputs = {{.shape = {3, 5, 7}}, {.shape = {3, 9, 7}}}, .run = run<no, yes>},
         {.name = "both", .inputs = {{.shape = {3, 7, 5}}, {.shape = {3, 9, 7}}}, .run = run<yes, yes>},
         {.name = "row_times_column", .inputs = {{.shape = {4, 1, 13}}, {.shape = {4, 13, 1}}}, .run = run<no, no>},
         {.name = "large", .inputs = {{.shape = {37, 50}}, {.shape = {41, 50}}}, .run = run<no, yes>});

#if defined(ERMOE_WITH_CUDA)
TEST(Matmul, GpuAgreesOnManyAndOnLargeMatrices) {
  ERMOE_NEEDS_GPU(
      expect_gpu_agrees({.name = "heads", .inputs = {{.shape = {4, 6, 197, 64}}, {.shape = {4, 6, 197, 64}}}, .run = run<no, yes>}));
  ERMOE_NEEDS_GPU(expect_gpu_agrees({.name = "many", .inputs = {{.shape = {700, 9, 7}}, {.shape = {700, 9, 5}}}, .run = run<yes, no>}));
  ERMOE_NEEDS_GPU(expect_gpu_agrees({.name = "slots", .inputs = {{.shape = {3, 65, 128}}, {.shape = {3, 65, 384}}}, .run = run<yes, no>}));
}
#endif

TEST(Matmul, EqualsItsDefinitionUnderEveryTransposition) {
  TestBench bench;
  const int64_t B = 2, M = 3, K = 5, N = 4;
  for (Trans ta : {no, yes})
    for (Trans tb : {no, yes}) {
      const Tensor a = random_input(bench.ctx, {ta == yes ? Shape{B, K, M} : Shape{B, M, K}}, DType::f64, RngKey{1});
      const Tensor b = random_input(bench.ctx, {tb == yes ? Shape{B, N, K} : Shape{B, K, N}}, DType::f64, RngKey{2});
      std::vector<double> expected;
      for (int64_t i = 0; i < B * M * N; ++i) {
        const int64_t n = i % N, m = i / N % M, z = i / (N * M);
        double sum = 0;
        for (int64_t k = 0; k < K; ++k)
          sum += a.data<double>()[z * M * K + (ta == yes ? k * M + m : m * K + k)] *
                 b.data<double>()[z * K * N + (tb == yes ? n * K + k : k * N + n)];
        expected.push_back(sum);
      }
      EXPECT_LE(normalised_error(to_doubles(matmul(bench.ctx, Variable(a), Variable(b), ta, tb).value), expected), 1e-28);
    }
}

TEST(Matmul, AMatrixTimesItselfReceivesBothGradients) {
  const OpCase square{
      .name = "", .inputs = {{.shape = {2, 5, 5}}}, .run = [](const ExecContext& ctx, Vars x) { return matmul(ctx, x[0], x[0], no, yes); }};
  expect_gradient_matches_differences(square);
  expect_adding_equals_sum(square);
}

TEST(Matmul, BitsDoNotDependOnThreads) {
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {67, 17, 33}}, {.shape = {67, 17, 9}}}, .run = run<yes, no>});
}

TEST(Matmul, WrongShapesAreRefused) {
  TestBench bench;
  const auto zeros = [&](const Shape& shape) { return Variable(Tensor::zeros(bench.allocator, shape, DType::f32)); };
  expect_error([&] { matmul(bench.ctx, zeros({2, 3}), zeros({2, 3})); }, {"[matmul]", "(2, 3) times (2, 3)"});
  expect_error([&] { matmul(bench.ctx, zeros({2, 3}), zeros({3, 4}), no, yes); }, {"[matmul]", "(2, 3)", "(3, 4) transposed"});
  expect_error([&] { matmul(bench.ctx, zeros({5, 2, 3}), zeros({4, 3, 2})); }, {"[matmul]", "(5, 2, 3)", "(4, 3, 2)"});
  expect_error([&] { matmul(bench.ctx, zeros({3}), zeros({3})); }, {"[matmul]", "(3)"});
}

}  // namespace
}  // namespace ermoe::testing
