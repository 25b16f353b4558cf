// Routing to prototypes: cosines over a temperature, and the penalty on their spectrum.
#include "tests/models/tiny_training.h"

namespace ermoe::testing {
namespace {

VitConfig config_of(double spectrum = 0.05) {
  VitConfig config = tiny_config();
  config.moe.router = RouterKind::prototype;
  config.moe.prototype_temperature = 0.2;
  config.moe.prototype_spectrum = spectrum;
  return config;
}

Parameter& prototypes(TinyModel& tiny) { return tiny.parameter("blocks.1.moe.router.prototypes"); }

double penalty(TinyModel& tiny) {
  ForwardPass pass;
  tiny.model.forward(tiny.bench.ctx, Variable(tiny.images), pass);
  for (const auto& [name, value] : pass.losses)
    if (name == "spectrum") return scalar_of(value);
  return -1;
}

/// Sets prototype e to `length` times the e-th of `directions` unit vectors.
void set_axes(TinyModel& tiny, const std::vector<int64_t>& axes, double length) {
  const Tensor t = prototypes(tiny).value;
  fill(t, 0);
  for (size_t e = 0; e < axes.size(); ++e) t.data<double>()[static_cast<int64_t>(e) * 16 + axes[e]] = length;
}

TEST(Prototypes, WeighBySoftmaxOfCosines) {
  TinyModel tiny(config_of());
  tiny.differentiate();
  const auto s = to_doubles(tiny.routes[0].scores), weights = to_doubles(tiny.routes[0].weights);
  const auto ids = tiny.routes[0].plan.expert_ids.span<int32_t>();
  for (size_t n = 0; n < 20; ++n) {
    double sum = 0;
    for (size_t e = 0; e < 4; ++e) {
      EXPECT_LE(std::abs(s[4 * n + e]), 1 + 1e-14);
      sum += std::exp(s[4 * n + e] / 0.2);
    }
    EXPECT_GE(s[4 * n + static_cast<size_t>(ids[2 * n])], s[4 * n + static_cast<size_t>(ids[2 * n + 1])]);
    for (size_t k = 0; k < 2; ++k)
      EXPECT_NEAR(weights[2 * n + k], std::exp(s[4 * n + static_cast<size_t>(ids[2 * n + k])] / 0.2) / sum, 1e-13);
  }
}

TEST(Prototypes, PenaltyIsThatOfTheDefinition) {
  TinyModel tiny(config_of());
  set_axes(tiny, {0, 3, 5, 9}, 2.5);  // orthonormal but for their length, which does not count
  EXPECT_NEAR(penalty(tiny), 0, 1e-14);
  set_axes(tiny, {0, 0, 5, 9}, 2.5);  // two alike: P Pᵀ has two ones beside its diagonal
  EXPECT_NEAR(penalty(tiny), 0.05 * 2, 1e-14);
  set_axes(tiny, {7, 7, 7, 7}, 0.1);
  EXPECT_NEAR(penalty(tiny), 0.05 * 12, 1e-14);
}

TEST(Prototypes, PenaltyIsOfTrainingAlone) {
  TinyModel off(config_of(0)), tiny(config_of());
  EXPECT_EQ(penalty(off), -1);
  EXPECT_GT(penalty(tiny), 0);
  tiny.bench.ctx.mode = Mode::eval;
  EXPECT_EQ(penalty(tiny), -1);
}

TEST(Prototypes, PenaltyDrivesThemApart) {
  TinyModel tiny(config_of(5));
  const double before = penalty(tiny);
  TinyTraining training(tiny, {.lr = 1e-2, .weight_decay = 0});
  for (int i = 0; i < 40; ++i) ASSERT_TRUE(training.step().accepted);
  EXPECT_LT(penalty(tiny), 0.1 * before);
}

TEST(Prototypes, LengthsDecideNothing) {
  TinyModel tiny(config_of());
  const double loss = tiny.total_loss();
  for (double& v : prototypes(tiny).value.span<double>()) v *= 7;
  EXPECT_NEAR(tiny.total_loss(), loss, 1e-13);
}

}  // namespace
}  // namespace ermoe::testing
