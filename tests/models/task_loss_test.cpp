// Losses of numbers: in which unit they are, and what outputs mean.
#include "models/task_loss.h"

#include "core/enum_names.h"
#include "tests/models/tiny_model.h"
#include "tests/ops/expect_error.h"

#include <cmath>

namespace ermoe::testing {
namespace {

LossConfig loss_of(LossKind kind) {
  LossConfig loss;
  loss.kind = kind;
  return loss;
}

Tensor column(TestBench& bench, const std::vector<double>& values) {
  return Tensor::from<double>(bench.allocator, {std::ssize(values), 1}, values);
}

double value_of(TestBench& bench, const LossConfig& loss, const Tensor& outputs, const Tensor& targets) {
  return scalar_of(task_loss(bench.ctx, loss, Variable(outputs), targets).value);
}

TEST(TaskLoss, OfNumbersIsInUnitsOfTheScale) {
  TestBench bench;
  const Tensor outputs = column(bench, {0.5, -1}), ages = column(bench, {60, 15});
  LossConfig loss = loss_of(LossKind::l1);
  loss.target_mean = 45;
  loss.target_scale = 15;  // targets 1 and -2
  EXPECT_NEAR(value_of(bench, loss, outputs, ages), (0.5 + 1) / 2, 1e-12);
  loss.kind = LossKind::l2;
  EXPECT_NEAR(value_of(bench, loss, outputs, ages), (0.25 + 1) / 2, 1e-12);
  loss.kind = LossKind::huber;
  loss.delta = 9;  // years: 0.6 of the scale
  EXPECT_NEAR(value_of(bench, loss, outputs, ages), (0.125 + 0.6 * (1 - 0.3)) / 2, 1e-12);
  EXPECT_EQ(predicted_numbers(loss, outputs), (std::vector<double>{52.5, 30}));
  EXPECT_NEAR(value_of(bench, loss_of(LossKind::l1), outputs, ages), (59.5 + 16) / 2, 1e-12) << "by default they are taken as they are";
}

TEST(TaskLoss, OfSoftLabelsIsADivergenceThatVanishesAtTheTarget) {
  TestBench bench;
  const LossConfig loss = loss_of(LossKind::soft_labels);
  ASSERT_EQ(outputs_of(loss), 90);
  const std::vector<double> years{23.4, 50, 88.9};
  const Tensor ages = column(bench, years), exact = bin_targets(bench.ctx, ages, Bins{}, 1);
  const Tensor logits = bench.ctx.empty(exact.shape(), DType::f64);
  for (int64_t i = 0; i < logits.numel(); ++i) logits.data<double>()[i] = std::log(std::max(exact.data<double>()[i], 1e-300)) + 7;
  EXPECT_NEAR(value_of(bench, loss, logits, ages), 0, 1e-12);
  const auto predicted = predicted_numbers(loss, logits);
  for (size_t b = 0; b < years.size(); ++b) EXPECT_NEAR(predicted[b], years[b], 1e-4);
  const Tensor level = Tensor::zeros(bench.allocator, {3, 90}, DType::f64);
  for (double number : predicted_numbers(loss, level)) EXPECT_NEAR(number, 55, 1e-9);
  // The entropy of a normal distribution of deviation 1, in bins of 1, is about ln sqrt(2πe), and 1/24 more for the width of the bins.
  const double entropy = 0.5 * std::log(2 * 3.141592653589793 * std::exp(1.0)) + 1.0 / 24;
  EXPECT_NEAR(value_of(bench, loss, level.slice(0, 1), column(bench, {50})), std::log(90) - entropy, 2e-3);
}

TEST(TaskLoss, OfSoftLabelsHasTheGradientOfItsDifferences) {
  LossConfig loss = loss_of(LossKind::soft_labels);
  loss.bins = "-4:4:0.5";
  loss.sigma = 0.7;
  VitConfig config = tiny_config();
  config.dimensions = 3;
  config.classes = 16;
  TinyModel tiny(config, DType::f64, 1, loss);  // its targets are normal numbers
  expect_gradients_match_differences(tiny, 3);
}

TEST(TaskLoss, NarrowOutputsMeanTheSame) {
  TestBench bench;
  LossConfig loss = loss_of(LossKind::soft_labels);
  const Tensor logits = bench.ctx.empty({1, 90}, DType::f32);
  fill(logits, -1000);
  logits.data<float>()[30] = logits.data<float>()[31] = 800;
  EXPECT_NEAR(predicted_numbers(loss, logits)[0], 41, 1e-9);
}

TEST(FitTargets, ReadsMeanAndDeviationOffTheTrainingTargets) {
  LossConfig loss = loss_of(LossKind::l1);
  loss.target_scale = 0;
  fit_targets(loss, std::vector<double>{20, 40, 60, 80});
  EXPECT_NEAR(loss.target_mean, 50, 1e-12);
  EXPECT_NEAR(loss.target_scale, std::sqrt(500), 1e-12);
  LossConfig given = loss_of(LossKind::l1);
  given.target_mean = 3;
  fit_targets(given, std::vector<double>{20, 40});
  EXPECT_EQ(given.target_mean, 3);
  EXPECT_EQ(given.target_scale, 1);
  LossConfig alike = loss_of(LossKind::huber);
  alike.target_scale = 0;
  fit_targets(alike, std::vector<double>{7, 7});
  EXPECT_EQ(alike.target_mean, 7);
  EXPECT_EQ(alike.target_scale, 1);
}

TEST(FitTargets, OutsideOfTheBinsAreRefused) {
  LossConfig loss = loss_of(LossKind::soft_labels);
  EXPECT_NO_THROW(fit_targets(loss, std::vector<double>{10, 55, 100}));
  EXPECT_THROW(fit_targets(loss, std::vector<double>{55, 100.5}), InputError);
  EXPECT_THROW(fit_targets(loss, std::vector<double>{std::nan("")}), InputError);
  EXPECT_THROW(fit_targets(loss, std::vector<double>{}), InputError);
}

TEST(TaskLoss, WhatDoesNotFitIsRefused) {
  TestBench bench;
  expect_error([&] { TaskLoss(bench.ctx, loss_of(LossKind::soft_labels), 1, DType::f32); }, {"model.classes", "soft_labels", "90 outputs"});
  expect_error([&] { TaskLoss(bench.ctx, loss_of(LossKind::l2), 2, DType::f32); }, {"model.classes", "l2", "1 output,"});
  LossConfig unknown = loss_of(LossKind::l1);
  unknown.target_scale = 0;
  expect_error([&] { TaskLoss(bench.ctx, unknown, 1, DType::f32); }, {"loss.target_scale"});
  expect_error([&] { predicted_numbers(loss_of(LossKind::l1), Tensor::zeros(bench.allocator, {2, 2}, DType::f32)); }, {"(2, 2)"});
}

TEST(Bins, AreRules) {
  EXPECT_EQ(parse_bins("10:100"), (Bins{.low = 10, .width = 1, .count = 90}));
  EXPECT_EQ(parse_bins("18:92:2"), (Bins{.low = 18, .width = 2, .count = 37}));
  EXPECT_EQ(parse_bins("-1:1:0.1").count, 20);
  EXPECT_EQ(parse_bins("-1:1:0.1").high(), 1);
  for (const char* bad : {"", "10", "10:", ":10", "100:10", "10:10", "10:100:0", "10:100:-1", "10:100:7", "10:11", "0:5000", "a:b",
                          "1:2:3:4", "10:nan", "0:inf", "0:1e9:1e-9"})
    EXPECT_THROW(parse_bins(bad), InputError) << bad;
}

TEST(MadeTargets, AreWhatEveryLossTakes) {
  TestBench bench;
  for (const LossKind kind :
       {LossKind::cross_entropy, LossKind::sigmoid, LossKind::l1, LossKind::l2, LossKind::huber, LossKind::soft_labels}) {
    LossConfig loss = loss_of(kind);
    loss.target_mean = 50;
    loss.target_scale = 10;
    const int64_t outputs = is_regression(kind) ? outputs_of(loss) : 7;
    const Tensor targets = made_targets(bench.ctx, loss, outputs, 200);
    const TaskLoss task(bench.ctx, loss, outputs, DType::f32);
    const Tensor logits = Tensor::zeros(bench.allocator, {200, outputs}, DType::f32);
    EXPECT_TRUE(std::isfinite(scalar_of(task(bench.ctx, Variable(logits), targets).value))) << enum_name(kind);
    double sum = 0;
    for (const float t : targets.span<float>()) sum += t;
    EXPECT_NEAR(sum / 200, is_regression(kind) ? 50 : 1, is_regression(kind) ? 3 : 0) << enum_name(kind);
  }
}

}  // namespace
}  // namespace ermoe::testing
