#include "ops/mlp.h"

#include "ops/gelu.h"
#include "ops/linear.h"
#include "tests/ops/expect_error.h"
#include "tests/ops/kept_memory.h"

namespace ermoe::testing {
namespace {

Variable with_biases(const ExecContext& ctx, Vars x) { return mlp(ctx, x[0], {.w1 = x[1], .b1 = x[2], .w2 = x[3], .b2 = x[4]}); }

OpCase mlp_case(const std::string& name, const Shape& x, int64_t hidden, int64_t out) {
  return {.name = name,
          .inputs = {{.shape = x}, {.shape = {hidden, x[-1]}}, {.shape = {hidden}}, {.shape = {out, hidden}}, {.shape = {out}}},
          .run = with_biases};
}

OpCase with_some(const std::string& name, std::vector<OpInput> inputs, std::function<Variable(const ExecContext&, Vars)> run) {
  return {.name = name, .inputs = std::move(inputs), .run = std::move(run)};
}

std::vector<OpCase> mlp_cases() {
  std::vector<OpCase> all{mlp_case("one", {1}, 1, 1), mlp_case("one_row", {1, 5}, 7, 3), mlp_case("ragged", {3, 5, 7}, 11, 5),
                          mlp_case("aligned", {2, 17, 8}, 24, 16)};
  const Shape x{6, 5}, w1{9, 5}, w2{3, 9};
  all.push_back(with_some("no_biases", {{.shape = x}, {.shape = w1}, {.shape = w2}},
                          [](const ExecContext& ctx, Vars in) { return mlp(ctx, in[0], {.w1 = in[1], .b1 = {}, .w2 = in[2], .b2 = {}}); }));
  all.push_back(with_some("first_bias", {{.shape = x}, {.shape = w1}, {.shape = w2}, {.shape = {9}}}, [](const ExecContext& ctx, Vars in) {
    return mlp(ctx, in[0], {.w1 = in[1], .b1 = in[3], .w2 = in[2], .b2 = {}});
  }));
  all.push_back(with_some("second_bias", {{.shape = x}, {.shape = w1}, {.shape = w2}, {.shape = {3}}}, [](const ExecContext& ctx, Vars in) {
    return mlp(ctx, in[0], {.w1 = in[1], .b1 = {}, .w2 = in[2], .b2 = in[3]});
  }));
  return all;
}

OP_CASES_OF(MlpOp, mlp_cases());

#if defined(ERMOE_WITH_CUDA)
TEST(Mlp, GpuAgreesOnTransformerShapes) {
  for (const OpCase& op : {mlp_case("s16", {21, 197, 384}, 1536, 384), mlp_case("many_rows", {20011, 24}, 40, 24),
                           mlp_case("odd", {777, 33}, 129, 65), mlp_case("no_rows", {0, 16}, 32, 16)})
    ERMOE_NEEDS_GPU(expect_gpu_agrees(op));
}
#endif

TEST(Mlp, EqualsTheOpsItIsMadeOf) {
  for (const OpCase& whole : {mlp_case("ragged", {3, 5, 7}, 12, 5), mlp_case("wide", {41, 33}, 65, 33)}) {
    OpCase parts = whole;
    parts.run = [](const ExecContext& ctx, Vars x) { return linear(ctx, gelu(ctx, linear(ctx, x[0], x[1], x[2])), x[3], x[4]); };
    for (DType dtype : {DType::f32, DType::f64}) {
      TestBench a, b;
      EXPECT_EQ(run_op(a, whole, dtype).tensors, run_op(b, parts, dtype).tensors) << whole.name;
    }
  }
}

TEST(Mlp, FrozenInputsChangeNoOtherGradient) {
  const OpCase op = mlp_case("frozen", {13, 5}, 9, 7);
  const auto gradients = [&](unsigned frozen) {  // a bit an input
    TestBench bench;
    Tape tape;
    const ExecContext ctx = bench.ctx.with_tape(&tape);
    std::vector<Variable> vars;
    for (size_t i = 0; i < op.inputs.size(); ++i) {
      const Tensor value = random_input(ctx, op.inputs[i], DType::f64, RngKey{31}.fold(i));
      vars.push_back(frozen >> i & 1 ? Variable(value) : tape.leaf(value));
    }
    const Variable y = op.run(ctx, vars);
    tape.backward(ctx, y, random_input(ctx, {y.shape()}, DType::f64, RngKey{32}));
    std::vector<std::vector<double>> all;
    for (size_t i = 0; i < vars.size(); ++i) all.push_back(frozen >> i & 1 ? std::vector<double>() : to_doubles(tape.grad(vars[i])));
    return all;
  };
  const auto whole = gradients(0);
  for (unsigned frozen = 1; frozen < 31; ++frozen) {
    const auto some = gradients(frozen);
    for (size_t i = 0; i < whole.size(); ++i) {
      if (frozen >> i & 1) continue;
      EXPECT_EQ(some[i], whole[i]) << "input " << i << " where those of " << frozen << " are frozen";
    }
  }
}

TEST(Mlp, KeepsOneOfItsTwoWidestTensors) { expect_one_kept_and_two_at_the_peak(mlp_case("wide", {512, 16}, 1024, 16), 4.0 * 512 * 1024); }

TEST(Mlp, NoRowsGiveZeroParameterGradients) {
  TestBench bench;
  const OpRun run = run_op(bench, mlp_case("no_rows", {0, 3}, 4, 2), DType::f32);
  for (size_t i = 2; i < run.tensors.size(); ++i)
    for (double g : run.tensors[i]) EXPECT_EQ(g, 0.0) << "input " << i - 1;
}

TEST(Mlp, WrongShapesAreRefused) {
  TestBench bench;
  const auto zeros = [&](const Shape& shape, DType dtype = DType::f32) { return Variable(Tensor::zeros(bench.allocator, shape, dtype)); };
  const auto run = [&](const Shape& x, const Shape& w1, const Shape& b1, const Shape& w2, const Shape& b2) {
    mlp(bench.ctx, zeros(x), {.w1 = zeros(w1), .b1 = zeros(b1), .w2 = zeros(w2), .b2 = zeros(b2)});
  };
  expect_error([&] { run({2, 3}, {5, 4}, {5}, {3, 5}, {3}); }, {"[mlp]", "(2, 3)", "(5, 4)"});
  expect_error([&] { run({2, 4}, {5, 4}, {5}, {3, 6}, {3}); }, {"[mlp]", "(5, 4)", "(3, 6)"});
  expect_error([&] { run({2, 4}, {5, 4}, {4}, {3, 5}, {3}); }, {"[mlp]", "b1", "(4)"});
  expect_error([&] { run({2, 4}, {5, 4}, {5}, {3, 5}, {5}); }, {"[mlp]", "b2", "(5)"});
  expect_error(
      [&] {
        mlp(bench.ctx, zeros({2, 4}), {.w1 = zeros({5, 4}, DType::f64), .b1 = {}, .w2 = zeros({3, 5}), .b2 = {}});
      },
      {"[mlp]", "f32", "f64"});
  expect_error([&] { mlp(bench.ctx, zeros({2, 4}), {.w1 = {}, .b1 = {}, .w2 = zeros({3, 5}), .b2 = {}}); }, {"[mlp]", "(2, 4)"});
}

}  // namespace
}  // namespace ermoe::testing
