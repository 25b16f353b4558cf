#include "ops/regression_loss.h"

#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"

namespace ermoe::testing {
namespace {

enum class Loss { l1, l2, huber };

std::function<Variable(const ExecContext&, Vars)> run(Loss loss, double delta = 1) {
  return [=](const ExecContext& ctx, Vars x) {
    const Tensor target = random_input(ctx, {x[0].shape()}, master_of(x[0].dtype()), RngKey{31});
    if (loss == Loss::huber) return huber_loss(ctx, x[0], target, delta);
    return loss == Loss::l1 ? l1_loss(ctx, x[0], target) : l2_loss(ctx, x[0], target);
  };
}

OP_CASES(RegressionLossOp, {.name = "l1", .inputs = {{.shape = {37}}}, .run = run(Loss::l1)},
         {.name = "l2_one", .inputs = {{.shape = {1}}}, .run = run(Loss::l2)},
         {.name = "l2", .inputs = {{.shape = {37}}}, .run = run(Loss::l2)},
         {.name = "huber", .inputs = {{.shape = {37}}}, .run = run(Loss::huber, 0.7)},
         {.name = "l2_large", .inputs = {{.shape = {1027}}}, .run = run(Loss::l2)},
         {.name = "huber_two_axes", .inputs = {{.shape = {13, 3}}}, .run = run(Loss::huber, 2)});

TEST(RegressionLoss, MatchesItsDefinition) {
  TestBench bench;
  const Tensor x = random_input(bench.ctx, {Shape{101}}, DType::f64, RngKey{2});
  const Tensor t = random_input(bench.ctx, {Shape{101}}, DType::f64, RngKey{3});
  double l1 = 0, l2 = 0, huber = 0;
  for (int64_t i = 0; i < 101; ++i) {
    const double d = std::abs(x.data<double>()[i] - t.data<double>()[i]), inside = std::min(d, 0.5);
    l1 += d / 101;
    l2 += d * d / 101;
    huber += (inside * inside / 2 + 0.5 * (d - inside)) / 101;
  }
  const Variable v(x);
  EXPECT_NEAR(l1_loss(bench.ctx, v, t).value.data<double>()[0], l1, 1e-14);
  EXPECT_NEAR(l2_loss(bench.ctx, v, t).value.data<double>()[0], l2, 1e-14);
  EXPECT_NEAR(huber_loss(bench.ctx, v, t, 0.5).value.data<double>()[0], huber, 1e-14);
}

TEST(RegressionLoss, AnExactPredictionHasNoGradient) {
  TestBench bench;
  for (Loss loss : {Loss::l1, Loss::l2, Loss::huber}) {
    Tape tape;
    const ExecContext ctx = bench.ctx.with_tape(&tape);
    const Variable x = tape.leaf(random_input(ctx, {Shape{4}}, DType::f32, RngKey{31}));  // as `run` draws its target
    const std::vector<Variable> inputs{x};
    const Variable y = run(loss)(ctx, inputs);
    EXPECT_EQ(y.value.data<float>()[0], 0.0f);
    tape.backward(ctx, y);
    for (double g : to_doubles(tape.grad(x))) EXPECT_EQ(g, 0.0);
  }
}

TEST(RegressionLoss, ANanReachesTheGradient) {
  TestBench bench;
  for (Loss loss : {Loss::l1, Loss::l2, Loss::huber}) {
    Tape tape;
    const ExecContext ctx = bench.ctx.with_tape(&tape);
    const Variable x = tape.leaf(random_input(ctx, {Shape{4}}, DType::f32, RngKey{1}));
    x.value.data<float>()[2] = std::nanf("");
    const std::vector<Variable> inputs{x};
    const Variable y = run(loss)(ctx, inputs);
    EXPECT_TRUE(std::isnan(y.value.data<float>()[0]));
    tape.backward(ctx, y);
    EXPECT_TRUE(std::isnan(tape.grad(x).data<float>()[2]));
  }
}

TEST(RegressionLoss, WrongShapesAreRefused) {
  TestBench bench;
  const auto zeros = [&](const Shape& shape, DType dtype = DType::f32) { return Tensor::zeros(bench.allocator, shape, dtype); };
  const Variable x(zeros({4}));
  expect_error([&] { l1_loss(bench.ctx, x, zeros({4, 1})); }, {"[l1_loss]", "(4)", "(4, 1)"});
  expect_error([&] { l2_loss(bench.ctx, x, zeros({4}, DType::f64)); }, {"[l2_loss]", "f32", "f64"});
  expect_error([&] { huber_loss(bench.ctx, x, zeros({4}), 0); }, {"[huber_loss]", "delta 0"});
  expect_error([&] { l1_loss(bench.ctx, Variable(zeros({0})), zeros({0})); }, {"[l1_loss]", "(0)"});
}

}  // namespace
}  // namespace ermoe::testing
