#include "ops/cross_entropy.h"

#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/thread_case.h"

namespace ermoe::testing {
namespace {

enum class Loss { cross_entropy, sigmoid, kl };
enum class Weights { none, some };

/// Positive targets whose rows do not sum to one, and weights, both as precise as the loss.
Tensor targets_for(const ExecContext& ctx, const Shape& shape, DType dtype) {
  return random_input(ctx, {shape, OpInput::Fill::unit}, master_of(dtype), RngKey{31});
}
Tensor weights_for(const ExecContext& ctx, int64_t classes, DType dtype) {
  return random_input(ctx, {Shape{classes}, OpInput::Fill::positive}, master_of(dtype), RngKey{37});
}

std::function<Variable(const ExecContext&, Vars)> run(Loss loss, Weights weights) {
  return [=](const ExecContext& ctx, Vars x) {
    const Tensor t = targets_for(ctx, x[0].shape(), x[0].dtype());
    const Tensor w = weights == Weights::some ? weights_for(ctx, x[0].shape()[1], x[0].dtype()) : Tensor();
    if (loss == Loss::kl) return kl_loss(ctx, x[0], t);
    return loss == Loss::sigmoid ? sigmoid_cross_entropy(ctx, x[0], t, w) : cross_entropy(ctx, x[0], t, w);
  };
}

OP_CASES(CrossEntropyOp, {.name = "one", .inputs = {{.shape = {1, 1}}}, .run = run(Loss::cross_entropy, Weights::none)},
         {.name = "ragged", .inputs = {{.shape = {5, 7}}}, .run = run(Loss::cross_entropy, Weights::none)},
         {.name = "weighted", .inputs = {{.shape = {3, 37}}}, .run = run(Loss::cross_entropy, Weights::some)},
         {.name = "large", .inputs = {{.shape = {13, 301}}}, .run = run(Loss::cross_entropy, Weights::some)},
         {.name = "thousand_classes", .inputs = {{.shape = {37, 1000}}}, .run = run(Loss::cross_entropy, Weights::none)},
         {.name = "sigmoid", .inputs = {{.shape = {5, 7}}}, .run = run(Loss::sigmoid, Weights::none)},
         {.name = "sigmoid_weighted", .inputs = {{.shape = {17, 61}}}, .run = run(Loss::sigmoid, Weights::some)},
         {.name = "kl", .inputs = {{.shape = {9, 43}}}, .run = run(Loss::kl, Weights::none)});

/// The definitions, term by term, in double.
double by_definition(Loss loss, const Tensor& logits, const Tensor& targets, const Tensor& weights) {
  const int64_t batch = logits.shape()[0], classes = logits.shape()[1];
  double sum = 0;
  for (int64_t b = 0; b < batch; ++b) {
    const double *x = logits.data<double>() + b * classes, *t = targets.data<double>() + b * classes;
    double total = 0;
    for (int64_t y = 0; y < classes; ++y) total += std::exp(x[y]);
    for (int64_t y = 0; y < classes; ++y) {
      const double w = weights.defined() ? weights.data<double>()[y] : 1, p = std::exp(x[y]) / total, s = 1 / (1 + std::exp(-x[y]));
      if (loss == Loss::cross_entropy) sum -= w * t[y] * std::log(p);
      if (loss == Loss::sigmoid) sum -= w * (t[y] * std::log(s) + (1 - t[y]) * std::log(1 - s));
      if (loss == Loss::kl) sum += t[y] * std::log(t[y] / p);
    }
  }
  return sum / static_cast<double>(batch);
}

TEST(CrossEntropy, MatchesItsDefinition) {
  TestBench bench;
  const Shape shape{11, 23};
  const Tensor x = random_input(bench.ctx, {shape}, DType::f64, RngKey{2}), t = targets_for(bench.ctx, shape, DType::f64);
  for (Loss loss : {Loss::cross_entropy, Loss::sigmoid, Loss::kl})
    for (Weights weights : {Weights::none, Weights::some}) {
      if (loss == Loss::kl && weights == Weights::some) continue;
      const Tensor w = weights == Weights::some ? weights_for(bench.ctx, 23, DType::f64) : Tensor();
      const double expected = by_definition(loss, x, t, w);
      const std::vector<Variable> inputs{Variable(x)};
      EXPECT_NEAR(run(loss, weights)(bench.ctx, inputs).value.data<double>()[0], expected, 1e-13 * std::abs(expected));
    }
}

TEST(CrossEntropy, LargeLogitsStayFiniteWithTheirGradient) {
  TestBench bench;
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  const std::vector<float> logits{1e4f, -1e4f, 0, -3e4f}, one_hot{0, 1, 1, 0};
  const Tensor t = Tensor::from<float>(bench.allocator, {2, 2}, one_hot);
  const Variable x = tape.leaf(Tensor::from<float>(bench.allocator, {2, 2}, logits));
  const Variable soft = cross_entropy(ctx, x, t), sigmoid = sigmoid_cross_entropy(ctx, x, t);
  EXPECT_FLOAT_EQ(soft.value.data<float>()[0], 1e4f);  // (2e4 + 0) / 2
  EXPECT_FLOAT_EQ(sigmoid.value.data<float>()[0], (1e4f + 1e4f + std::log(2.0f)) / 2);
  tape.backward(ctx, soft);
  tape.backward(ctx, sigmoid);
  for (double g : to_doubles(tape.grad(x))) EXPECT_TRUE(std::isfinite(g));
}

TEST(CrossEntropy, AnAllZeroTargetRowIsMasked) {
  TestBench bench;
  Tape tape;
  const ExecContext ctx = bench.ctx.with_tape(&tape);
  const Variable x = tape.leaf(random_input(ctx, {Shape{2, 5}}, DType::f64, RngKey{2}));
  const Tensor t = Tensor::zeros(bench.allocator, {2, 5}, DType::f64);
  t.data<double>()[3] = 1;
  tape.backward(ctx, kl_loss(ctx, x, t));  // 0 log 0 = 0 as well
  const auto grad = to_doubles(tape.grad(x));
  EXPECT_LT(grad[3], 0);
  for (size_t y = 5; y < 10; ++y) EXPECT_EQ(grad[y], 0.0);
}

TEST(CrossEntropy, KlIsZeroAtTheTargets) {
  TestBench bench;
  const std::vector<double> p{0.1, 0.2, 0.7};
  std::vector<double> logits;
  for (double v : p) logits.push_back(std::log(v) + 3);
  const Variable x(Tensor::from<double>(bench.allocator, {1, 3}, logits));
  EXPECT_NEAR(kl_loss(bench.ctx, x, Tensor::from<double>(bench.allocator, {1, 3}, p)).value.data<double>()[0], 0, 1e-15);
}

TEST(CrossEntropy, BitsDoNotDependOnThreads) {
  for (Loss loss : {Loss::cross_entropy, Loss::sigmoid, Loss::kl})
    expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {129, 101}}}, .run = run(loss, Weights::some)});
}

TEST(CrossEntropy, WrongShapesAreRefused) {
  TestBench bench;
  const auto zeros = [&](const Shape& shape, DType dtype = DType::f32) { return Tensor::zeros(bench.allocator, shape, dtype); };
  const Variable x(zeros({4, 10}));
  expect_error([&] { cross_entropy(bench.ctx, x, zeros({4, 9})); }, {"[cross_entropy]", "(4, 10)", "(4, 9)"});
  expect_error([&] { cross_entropy(bench.ctx, x, zeros({4, 10}), zeros({4})); }, {"[cross_entropy]", "(4, 10)", "(4)"});
  expect_error([&] { cross_entropy(bench.ctx, x, Tensor()); }, {"[cross_entropy]", "(4, 10)"});
  expect_error([&] { cross_entropy(bench.ctx, Variable(zeros({0, 10})), zeros({0, 10})); }, {"[cross_entropy]", "(0, 10)"});
  expect_error([&] { sigmoid_cross_entropy(bench.ctx, x, zeros({4, 10}, DType::f64)); }, {"[sigmoid_cross_entropy]", "f32", "f64"});
  expect_error([&] { kl_loss(bench.ctx, Variable(zeros({10})), zeros({10})); }, {"[kl_loss]", "(10)"});
}

}  // namespace
}  // namespace ermoe::testing
