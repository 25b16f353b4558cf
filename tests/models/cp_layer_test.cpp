// Mixed experts against the tensor that their factors stand for.
#include "models/cp_layer.h"

#include "models/summary.h"
#include "tests/models/tiny_training.h"

#include <numeric>

namespace ermoe::testing {
namespace {

VitConfig config_of(int64_t rank = 5) {
  VitConfig config = tiny_config();
  config.moe.layer = ExpertLayer::cp;
  config.moe.cp_rank = rank;
  return config;
}

std::vector<double> of_layer(TinyModel& tiny, const std::string& name) { return to_doubles(tiny.parameter("blocks.1.cp." + name).value); }

double gelu(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }

/// y[o] = Σ_e a_e (Σ_i W[e,o,i] x_i + W[e,o,I]), every element of the tensor made from its factors.
std::vector<double> mixed_by_hand(TinyModel& tiny, const std::string& name, const std::vector<double>& x, const std::vector<double>& a) {
  const auto A = of_layer(tiny, name + ".mix"), V = of_layer(tiny, name + ".down.weight"), v = of_layer(tiny, name + ".down.bias"),
             U = of_layer(tiny, name + ".up.weight");
  const size_t R = v.size(), E = a.size(), I = x.size(), O = U.size() / R;
  std::vector<double> y(O);
  for (size_t e = 0; e < E; ++e)
    for (size_t o = 0; o < O; ++o)
      for (size_t i = 0; i <= I; ++i) {
        double w = 0;
        for (size_t r = 0; r < R; ++r) w += A[r * E + e] * (i < I ? V[r * I + i] : v[r]) * U[o * R + r];
        y[o] += a[e] * w * (i < I ? x[i] : 1);
      }
  return y;
}

TEST(CpLayer, IsTheMixtureOfItsTensorsExperts) {
  TinyModel tiny(config_of());
  const Tensor x = random_input(tiny.bench.ctx, {{2, 3, 16}}, DType::f64, RngKey{5});
  Tensor mean;
  const auto y = to_doubles(tiny.model.cp_layers().at(0)->forward(tiny.bench.ctx, Variable(x), mean).value);
  const auto all = to_doubles(x), G = of_layer(tiny, "gate");
  std::vector<double> means(4);
  for (size_t n = 0; n < 6; ++n) {
    const std::vector<double> token(all.begin() + static_cast<std::ptrdiff_t>(16 * n),
                                    all.begin() + static_cast<std::ptrdiff_t>(16 * n + 16));
    std::vector<double> a(4);
    for (size_t e = 0; e < 4; ++e)
      a[e] = std::exp(std::inner_product(token.begin(), token.end(), G.begin() + static_cast<std::ptrdiff_t>(16 * e), 0.0));
    const double total = std::accumulate(a.begin(), a.end(), 0.0);
    for (size_t e = 0; e < 4; ++e) means[e] += (a[e] /= total) / 6;
    auto hidden = mixed_by_hand(tiny, "fc1", token, a);
    for (double& h : hidden) h = gelu(h);
    const auto want = mixed_by_hand(tiny, "fc2", hidden, a);
    for (size_t d = 0; d < 16; ++d) EXPECT_NEAR(y[16 * n + d], want[d], 1e-12);
  }
  for (size_t e = 0; e < 4; ++e) EXPECT_NEAR(to_doubles(mean)[e], means[e], 1e-14);
}

TEST(CpLayer, SaysOnceWhatItsTokensTakeOnAverage) {
  for (const bool recompute : {false, true}) {
    VitConfig config = config_of();
    config.moe.layers = "0,1";
    config.recompute = recompute;
    TinyModel tiny(config);
    Tape tape;
    const ExecContext ctx = tiny.bench.ctx.with_tape(&tape);
    ForwardPass pass;
    const Variable y = tiny.model.forward(ctx, Variable(tiny.images), pass);
    tiny.model.arena().begin_gradients();
    tape.backward(ctx, y, random_input(ctx, {y.shape()}, DType::f64, RngKey{2}));
    ASSERT_EQ(pass.mixtures.size(), 2u);
    EXPECT_TRUE(pass.routes.empty());
    for (int64_t block : {0, 1}) {
      const auto& [of, mean] = pass.mixtures[static_cast<size_t>(block)];
      EXPECT_EQ(of, block);
      const auto shares = to_doubles(mean);
      EXPECT_NEAR(std::accumulate(shares.begin(), shares.end(), 0.0), 1, 1e-14);
    }
  }
}

TEST(CpLayer, TrainsAndItsExpertsDiffer) {
  TinyModel tiny(config_of(), DType::f32);
  TinyTraining training(tiny, {.lr = 3e-3, .weight_decay = 0});
  const double first = training.step().loss;
  double last = first;
  for (int i = 0; i < 30; ++i) {
    const StepReport report = training.step();
    ASSERT_TRUE(report.accepted) << report.fault;
    last = report.loss;
  }
  EXPECT_LT(last, 0.6 * first);
  tiny.differentiate();
  EXPECT_GT(largest_of(tiny.parameter("blocks.1.cp.gate").grad), 0);
}

TEST(CpLayer, CostsAsMuchAsTheExpertsOfATokenWhereNoRankIsGiven) {
  VitConfig config = tiny_config();
  config.width = 64;
  config.moe.hidden = 192;
  config.moe.layer = ExpertLayer::cp;
  Vit mixed(config);
  EXPECT_EQ(mixed.cp_layers()[0]->rank(), 96);                                   // 2 · 64 · 192 / (64 + 192)
  const double experts = 2.0 * 2 * 2 * 64 * 192, own = 2.0 * 4 * (64 + 2 * 96);  // scoring, and the mixing of four experts
  EXPECT_EQ(mixed.cp_layers()[0]->flops(), experts + own);
  config.moe.layers = "none";
  Vit dense(config);
  const double mlp = 4.0 * 5 * 64 * 128;
  EXPECT_EQ(summarize(mixed).forward_flops - summarize(dense).forward_flops, 5 * (experts + own) - mlp);
}

TEST(CpLayer, WhatGoesWithRoutersAloneIsRefused) {
  const auto refused = [](const std::function<void(MoeConfig&)>& change, const std::string& start) {
    VitConfig config = config_of();
    change(config.moe);
    try {
      Vit model(config);
      ADD_FAILURE() << "not refused: " << start;
    } catch (const InputError& e) {
      EXPECT_TRUE(std::string(e.what()).starts_with(start)) << e.what();
    }
  };
  refused([](MoeConfig& moe) { moe.adapter = 4; }, "moe.adapter: moe.layer cp");
  refused([](MoeConfig& moe) { moe.expert_dropout = 0.5; }, "moe.expert_dropout: moe.layer cp");
  refused([](MoeConfig& moe) { moe.free_experts = 1; }, "moe.free_experts: moe.layer cp");
  refused([](MoeConfig& moe) { moe.z_weight = 0.1; }, "moe.z_weight: moe.layer cp");
  refused([](MoeConfig& moe) { moe.extra_balance = 0.1; }, "moe.extra_balance: moe.layer cp");
}

}  // namespace
}  // namespace ermoe::testing
