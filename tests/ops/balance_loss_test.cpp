#include "ops/balance_loss.h"

#include "tests/ops/expect_error.h"
#include "tests/ops/op_case.h"
#include "tests/ops/padded.h"
#include "tests/ops/thread_case.h"

#include <algorithm>
#include <array>
#include <functional>

namespace ermoe::testing {
namespace {

/// Random expert ids in [-1, experts): some slots are missing.
Tensor random_ids(const ExecContext& ctx, int64_t rows, int64_t slots, int64_t experts) {
  std::vector<int32_t> ids(static_cast<size_t>(rows * slots));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(uniform_int(RngKey{41}, i, static_cast<uint64_t>(experts) + 1)) - 1;
  return Tensor::from<int32_t>(*ctx.allocator, {rows, slots}, ids);
}
Tensor noisy_for(const ExecContext& ctx, const Shape& shape, DType dtype) { return random_input(ctx, {shape}, dtype, RngKey{43}); }

Variable run_switch(const ExecContext& ctx, Vars x) {
  return switch_balance(ctx, x[0], random_ids(ctx, x[0].shape()[0], 2, x[0].shape()[1]));
}
Variable run_z(const ExecContext& ctx, Vars x) { return z_loss(ctx, x[0]); }
std::function<Variable(const ExecContext&, Vars)> run_importance(int64_t groups) {
  return [=](const ExecContext& ctx, Vars x) { return importance_loss(ctx, x[0], groups); };
}
std::function<Variable(const ExecContext&, Vars)> run_load(int64_t k, double sigma, int64_t groups) {
  return [=](const ExecContext& ctx, Vars x) {
    return load_loss(ctx, x[0], Variable(noisy_for(ctx, x[0].shape(), x[0].dtype())), k, sigma, groups);
  };
}

/// Beside padding.
Variable run_padded_switch(const ExecContext& ctx, Vars x) {
  const int64_t rows = x[0].shape()[0];
  return switch_balance(ctx, x[0], random_ids(ctx, rows, 2, x[0].shape()[1]), some_weights(ctx, x[0], rows));
}
Variable run_padded_z(const ExecContext& ctx, Vars x) { return z_loss(ctx, x[0], some_weights(ctx, x[0], x[0].shape()[0])); }
Variable run_padded_importance(const ExecContext& ctx, Vars x) {
  return importance_loss(ctx, x[0], 3, some_weights(ctx, x[0], x[0].shape()[0], 3));
}
Variable run_padded_load(const ExecContext& ctx, Vars x) {
  const Variable noisy(noisy_for(ctx, x[0].shape(), x[0].dtype()));
  return load_loss(ctx, x[0], noisy, 2, 0.9, 3, some_weights(ctx, x[0], x[0].shape()[0], 3));
}

constexpr auto unit = OpInput::Fill::unit;

/// What the losses are taken of is f32 also where the model computes in bf16.
OpInput logits_of(int64_t rows, int64_t experts) { return {.shape = {rows, experts}, .precision = OpInput::Precision::master}; }
OpInput probabilities_of(int64_t rows, int64_t experts) {
  return {.shape = {rows, experts}, .fill = unit, .precision = OpInput::Precision::master};
}

OP_CASES(BalanceLossOp, {.name = "switch_balance", .inputs = {probabilities_of(37, 5)}, .run = run_switch},
         {.name = "switch_balance_one", .inputs = {probabilities_of(1, 1)}, .run = run_switch},
         {.name = "switch_balance_many", .inputs = {probabilities_of(700, 8)}, .run = run_switch},
         {.name = "z_loss", .inputs = {logits_of(37, 5)}, .run = run_z}, {.name = "z_loss_one", .inputs = {logits_of(1, 1)}, .run = run_z},
         {.name = "z_loss_many_experts", .inputs = {logits_of(41, 70)}, .run = run_z},
         {.name = "importance_one_group", .inputs = {probabilities_of(37, 5)}, .run = run_importance(1)},
         {.name = "importance_groups", .inputs = {probabilities_of(39, 7)}, .run = run_importance(3)},
         {.name = "importance_many", .inputs = {probabilities_of(1200, 8)}, .run = run_importance(4)},
         {.name = "load_top1", .inputs = {logits_of(37, 5)}, .run = run_load(1, 0.8, 1)},
         {.name = "load_top2_groups", .inputs = {logits_of(39, 7)}, .run = run_load(2, 1.3, 3)},
         {.name = "load_many", .inputs = {logits_of(600, 8)}, .run = run_load(2, 0.7, 2)},
         {.name = "load_all_but_one", .inputs = {logits_of(10, 4)}, .run = run_load(3, 1, 2)},
         {.name = "switch_balance_padded", .inputs = {probabilities_of(37, 5)}, .run = run_padded_switch},
         {.name = "z_loss_padded", .inputs = {logits_of(37, 5)}, .run = run_padded_z},
         {.name = "importance_padded", .inputs = {probabilities_of(39, 7)}, .run = run_padded_importance},
         {.name = "load_padded", .inputs = {logits_of(39, 7)}, .run = run_padded_load});

TEST(BalanceLoss, PaddingSaysNothing) {
  const auto keep_all = [](const ExecContext& ctx, const Shape& s) { return random_input(ctx, {s}, DType::f64, RngKey{43}); };
  expect_padding_says_nothing<int32_t>({30}, 5, [](const ExecContext& ctx, const Variable& p, const auto& keep, const Tensor& weights) {
    const Tensor ids = random_ids(ctx, 30, 2, 5);
    for (int64_t n = 0; n < 30; ++n)  // padding goes to no expert
      for (int64_t k = 0; k < 2 && Padded{30}.is_padding(n); ++k) ids.data<int32_t>()[2 * n + k] = -1;
    return switch_balance(ctx, p, keep(ids), weights);
  });
  expect_padding_says_nothing<double>(
      {30}, 5, [](const ExecContext& ctx, const Variable& x, const auto&, const Tensor& weights) { return z_loss(ctx, x, weights); });
  for (const int64_t groups : {1, 3}) {
    expect_padding_says_nothing<double>({30, groups}, 5,
                                        [&](const ExecContext& ctx, const Variable& p, const auto&, const Tensor& weights) {
                                          return importance_loss(ctx, p, groups, weights);
                                        });
    expect_padding_says_nothing<double>({30, groups}, 5,
                                        [&](const ExecContext& ctx, const Variable& x, const auto& keep, const Tensor& weights) {
                                          return load_loss(ctx, x, Variable(keep(keep_all(ctx, {30, 5}))), 2, 0.7, groups, weights);
                                        });
  }
}

/// A group of padding alone has no loads that could differ, and no slope.
TEST(BalanceLoss, AGroupOfPaddingCostsNothing) {
  TestBench bench;
  const Tensor x = random_input(bench.ctx, {{6, 4}, unit}, DType::f64, RngKey{1});
  const Tensor mask = Tensor::from<uint8_t>(bench.allocator, {6, 1}, std::vector<uint8_t>{1, 1, 1, 0, 0, 0});
  const Tensor weights = token_weights(bench.ctx, mask, 2, DType::f64), first = x.slice(0, 3);
  const auto value_of = [](const Variable& v) { return to_doubles(v.value)[0]; };
  EXPECT_NEAR(value_of(importance_loss(bench.ctx, Variable(x), 2, weights)), value_of(importance_loss(bench.ctx, Variable(first), 1)) / 2,
              1e-12);
  EXPECT_NEAR(value_of(load_loss(bench.ctx, Variable(x), Variable(x), 2, 1, 2, weights)),
              value_of(load_loss(bench.ctx, Variable(first), Variable(first), 2, 1, 1)) / 2, 1e-12);
  using Loss = std::function<Variable(const ExecContext&, const Variable&)>;
  const Loss losses[] = {[&](const ExecContext& c, const Variable& v) { return importance_loss(c, v, 2, weights); },
                         [&](const ExecContext& c, const Variable& v) { return load_loss(c, v, Variable(x), 2, 1, 2, weights); }};
  for (const Loss& loss : losses) {
    Tape tape;
    const ExecContext ctx = bench.ctx.with_tape(&tape);
    const Variable leaf = tape.leaf(x);
    tape.backward(ctx, loss(ctx, leaf));
    const std::vector<double> slope = to_doubles(tape.grad(leaf));
    EXPECT_GT(std::abs(slope[0]), 0);
    for (size_t i = 12; i < slope.size(); ++i) EXPECT_EQ(slope[i], 0) << i;
  }
}

double value(const Variable& v) { return to_doubles(v.value)[0]; }

TEST(BalanceLoss, SwitchMatchesItsDefinition) {
  TestBench bench;
  const int64_t rows = 23, experts = 6, slots = 3;
  const Tensor p = random_input(bench.ctx, {Shape{rows, experts}, unit}, DType::f64, RngKey{1});
  const Tensor ids = random_ids(bench.ctx, rows, slots, experts);
  double expected = 0, filled = 0;
  for (int32_t id : ids.span<int32_t>()) filled += id >= 0 ? 1 : 0;
  ASSERT_LT(filled, static_cast<double>(ids.numel()));
  for (int64_t e = 0; e < experts; ++e) {
    double mean = 0;
    for (int64_t n = 0; n < rows; ++n) mean += p.data<double>()[n * experts + e] / static_cast<double>(rows);
    expected += static_cast<double>(std::ranges::count(ids.span<int32_t>(), static_cast<int32_t>(e))) / filled * mean;
  }
  expected *= static_cast<double>(experts);
  EXPECT_NEAR(value(switch_balance(bench.ctx, Variable(p), ids)), expected, 1e-14 * expected);
}

TEST(BalanceLoss, SwitchIsOneWhenEvenAndZeroWhenNothingIsFilled) {
  TestBench bench;
  const Tensor p = bench.ctx.empty({4, 2}, DType::f32);
  std::ranges::fill(p.span<float>(), 0.5f);
  const std::vector<int32_t> even{0, 1, 1, 0}, missing(4, -1);
  EXPECT_FLOAT_EQ(static_cast<float>(value(switch_balance(bench.ctx, Variable(p), Tensor::from<int32_t>(bench.allocator, {4, 1}, even)))),
                  1);
  EXPECT_EQ(value(switch_balance(bench.ctx, Variable(p), Tensor::from<int32_t>(bench.allocator, {4, 1}, missing))), 0);
}

double cv2(const std::vector<double>& x) {
  double mean = 0, square = 0;
  for (double v : x) {
    mean += v / static_cast<double>(x.size());
    square += v * v / static_cast<double>(x.size());
  }
  return (square - mean * mean) / (mean * mean + 1e-10);
}

TEST(BalanceLoss, ImportanceAndZMatchTheirDefinitions) {
  TestBench bench;
  const int64_t groups = 4, rows = 5, experts = 6;
  const Tensor x = random_input(bench.ctx, {Shape{groups * rows, experts}, unit}, DType::f64, RngKey{1});
  double importance = 0, z = 0;
  for (int64_t g = 0; g < groups; ++g) {
    std::vector<double> sums(static_cast<size_t>(experts), 0.0);
    for (int64_t n = g * rows; n < (g + 1) * rows; ++n) {
      double total = 0;
      for (int64_t e = 0; e < experts; ++e) {
        sums[static_cast<size_t>(e)] += x.data<double>()[n * experts + e];
        total += std::exp(x.data<double>()[n * experts + e]);
      }
      z += std::log(total) * std::log(total) / static_cast<double>(groups * rows);
    }
    importance += cv2(sums) / static_cast<double>(groups);
  }
  EXPECT_NEAR(value(importance_loss(bench.ctx, Variable(x), groups)), importance, 1e-13);
  EXPECT_NEAR(value(z_loss(bench.ctx, Variable(x))), z, 1e-13 * z);
}

/// Sorts each row's noisy logits, as the definition says.
double load_by_definition(const Tensor& clean, const Tensor& noisy, int64_t k, double sigma, int64_t groups) {
  const int64_t experts = clean.shape()[1], rows = clean.shape()[0] / groups;
  double sum = 0;
  for (int64_t g = 0; g < groups; ++g) {
    std::vector<double> load(static_cast<size_t>(experts), 0.0);
    for (int64_t n = g * rows; n < (g + 1) * rows; ++n)
      for (int64_t e = 0; e < experts; ++e) {
        std::vector<double> row(noisy.data<double>() + n * experts, noisy.data<double>() + (n + 1) * experts);
        std::ranges::sort(row, std::greater<>());
        const double z = (clean.data<double>()[n * experts + e] - row[static_cast<size_t>(k - 1)]) / sigma;
        load[static_cast<size_t>(e)] += 0.5 * (1 + std::erf(z / std::sqrt(2.0))) / static_cast<double>(rows);
      }
    sum += cv2(load) / static_cast<double>(groups);
  }
  return sum;
}

TEST(BalanceLoss, LoadMatchesItsDefinitionWithTiesToo) {
  TestBench bench;
  const Shape shape{21, 6};
  const Tensor clean = random_input(bench.ctx, {shape}, DType::f64, RngKey{1}), noisy = noisy_for(bench.ctx, shape, DType::f64);
  for (const bool ties : {false, true}) {
    if (ties)
      for (double& v : noisy.span<double>()) v = std::round(v);
    for (int64_t k : {1, 2, 5})
      for (int64_t groups : {1, 3})
        EXPECT_NEAR(value(load_loss(bench.ctx, Variable(clean), Variable(noisy), k, 0.6, groups)),
                    load_by_definition(clean, noisy, k, 0.6, groups), 1e-13);
  }
}

TEST(BalanceLoss, ANanLogitMakesTheLossNan) {
  TestBench bench;
  for (int64_t at : {0, 1, 2, 3}) {
    const Tensor x = random_input(bench.ctx, {Shape{1, 4}}, DType::f32, RngKey{1});
    x.data<float>()[at] = std::nanf("");
    EXPECT_TRUE(std::isnan(value(load_loss(bench.ctx, Variable(x), Variable(x), 2, 1, 1)))) << at;
    EXPECT_TRUE(std::isnan(value(z_loss(bench.ctx, Variable(x))))) << at;
    EXPECT_TRUE(std::isnan(value(importance_loss(bench.ctx, Variable(x), 1)))) << at;
  }
}

TEST(BalanceLoss, BitsDoNotDependOnThreads) {
  expect_same_bits_for_any_threads({.name = "", .inputs = {{{2310, 9}, unit}}, .run = run_switch});
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {2310, 9}}}, .run = run_z});
  expect_same_bits_for_any_threads({.name = "", .inputs = {{{2310, 9}, unit}}, .run = run_importance(7)});
  expect_same_bits_for_any_threads({.name = "", .inputs = {{.shape = {2310, 9}}}, .run = run_load(2, 1, 7)});
}

TEST(BalanceLoss, WrongShapesAreRefused) {
  TestBench bench;
  const auto zeros = [&](const Shape& shape, DType dtype = DType::f32) { return Tensor::zeros(bench.allocator, shape, dtype); };
  const Variable p(zeros({6, 4}));
  expect_error([&] { switch_balance(bench.ctx, p, zeros({5, 2}, DType::i32)); }, {"[switch_balance]", "(6, 4)", "(5, 2)"});
  expect_error([&] { switch_balance(bench.ctx, p, zeros({6, 2})); }, {"[switch_balance]", "f32"});
  const Tensor wild = zeros({6, 1}, DType::i32);
  wild.data<int32_t>()[3] = 4;
  expect_error([&] { switch_balance(bench.ctx, p, wild); }, {"[switch_balance]", "expert 4 of 4"});
  expect_error([&] { z_loss(bench.ctx, Variable(zeros({6}))); }, {"[z_loss]", "(6)"});
  expect_error([&] { z_loss(bench.ctx, p, zeros({5})); }, {"[z_loss]", "(6, 4)", "weights f32 (5)"});
  expect_error([&] { z_loss(bench.ctx, p, zeros({6}, DType::f64)); }, {"[z_loss]", "weights f64"});
  expect_error([&] { importance_loss(bench.ctx, p, 4); }, {"[importance_loss]", "6 rows in 4 groups"});
  expect_error([&] { importance_loss(bench.ctx, p, 0); }, {"[importance_loss]", "0 groups"});
  expect_error([&] { load_loss(bench.ctx, p, Variable(zeros({6, 3})), 1, 1, 1); }, {"[load_loss]", "(6, 4)", "(6, 3)"});
  expect_error([&] { load_loss(bench.ctx, p, p, 5, 1, 1); }, {"[load_loss]", "5 best of 4"});
  expect_error([&] { load_loss(bench.ctx, p, p, 1, 0, 1); }, {"[load_loss]", "sigma 0"});
}

}  // namespace
}  // namespace ermoe::testing
