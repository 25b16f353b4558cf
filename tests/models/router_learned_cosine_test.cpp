// Routing by learned embeddings: lengths decide nothing, the temperature scales and is bounded.
#include "tests/models/tiny_training.h"

namespace ermoe::testing {
namespace {

VitConfig config_of() {
  VitConfig config = tiny_config();
  config.moe.router = RouterKind::learned_cosine;
  config.moe.cosine_width = 6;
  return config;
}

Parameter& of_router(TinyModel& tiny, const std::string& name) { return tiny.parameter("blocks.1.moe.router." + name); }

void multiply(const Tensor& t, double factor) {
  for (double& v : t.span<double>()) v *= factor;
}

TEST(LearnedCosine, WeighsByTheSoftmaxOfScaledCosines) {
  TinyModel tiny(config_of());
  of_router(tiny, "temperature").value.data<double>()[0] = std::log(7.0);
  tiny.differentiate();
  const auto s = to_doubles(tiny.routes[0].scores), weights = to_doubles(tiny.routes[0].weights);
  const auto ids = tiny.routes[0].plan.expert_ids.span<int32_t>();
  for (size_t n = 0; n < 20; ++n) {
    double sum = 0;
    for (size_t e = 0; e < 4; ++e) {
      EXPECT_LE(std::abs(s[4 * n + e]), 1 + 1e-14);
      sum += std::exp(7 * s[4 * n + e]);
    }
    EXPECT_GE(weights[2 * n], weights[2 * n + 1]);
    for (size_t k = 0; k < 2; ++k)
      EXPECT_NEAR(weights[2 * n + k], std::exp(7 * s[4 * n + static_cast<size_t>(ids[2 * n + k])]) / sum, 1e-13);
  }
}

TEST(LearnedCosine, LengthsDecideNothing) {
  TinyModel tiny(config_of());
  const double loss = tiny.total_loss();
  multiply(of_router(tiny, "embeddings").value, 5);
  multiply(of_router(tiny, "projection").value, 0.3);
  EXPECT_NEAR(tiny.total_loss(), loss, 1e-13);
}

TEST(LearnedCosine, ScaleIsBoundedAndSoIsItsGradient) {
  TinyModel tiny(config_of());
  const auto loss_at = [&](double t) {
    of_router(tiny, "temperature").value.data<double>()[0] = t;
    return tiny.total_loss();
  };
  const double bound = std::log(100.0);
  EXPECT_NE(loss_at(bound), loss_at(bound - 0.1));
  EXPECT_EQ(loss_at(bound), loss_at(bound + 3));
  tiny.differentiate();  // beyond the bound
  EXPECT_EQ(of_router(tiny, "temperature").grad.data<double>()[0], 0);
  EXPECT_GT(largest_of(of_router(tiny, "embeddings").grad), 0);
  tiny.model.refresh(tiny.bench.ctx);
  loss_at(bound - 0.1);
  tiny.differentiate();
  EXPECT_NE(of_router(tiny, "temperature").grad.data<double>()[0], 0);
}

TEST(LearnedCosine, StartsWithTheScaleOfTheSettings) {
  VitConfig config = config_of();
  config.moe.cosine_scale = 14;
  TestBench bench;
  Vit model(config);
  model.allocate(bench.ctx, DType::f32);
  model.init(bench.ctx, RngKey{1});
  for (const Parameter* p : parameters_of(model))
    if (p->name.ends_with("router.temperature")) {
      EXPECT_FLOAT_EQ(p->value.data<float>()[0], std::log(14.0f));
      return;
    }
  ADD_FAILURE() << "no temperature";
}

TEST(LearnedCosine, ATokenWithoutADirectionLeavesNumbers) {
  TinyModel tiny(config_of());
  fill(of_router(tiny, "projection").value, 0);
  tiny.differentiate();
  for (double s : to_doubles(tiny.routes[0].scores)) EXPECT_EQ(s, 0);
  for (double w : to_doubles(tiny.routes[0].weights)) EXPECT_DOUBLE_EQ(w, 0.25);
  for (const auto& [name, grad] : tiny.gradients()) EXPECT_TRUE(std::isfinite(largest_of(grad))) << name;
}

}  // namespace
}  // namespace ermoe::testing
