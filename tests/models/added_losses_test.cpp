// The added losses beside every router that can have them; where experts have equal loads the balance loss is refused.
#include "models/added_losses.h"

#include "tests/models/tiny_model.h"

namespace ermoe::testing {
namespace {

VitConfig config_of(RouterKind router) {
  VitConfig config = tiny_config();
  config.moe.router = router;
  config.moe.importance_weight = config.moe.load_weight = config.moe.balance_weight = 0;
  config.moe.noise = config.moe.prototype_spectrum = 0;
  return config;
}

std::vector<std::string> names_of_terms(const VitConfig& config, Mode mode) {
  TinyModel tiny(config);
  ExecContext ctx = tiny.bench.ctx;
  ctx.mode = mode;
  ForwardPass pass;
  tiny.model.forward(ctx, Variable(tiny.images), pass);
  std::vector<std::string> names;
  for (const auto& [name, value] : pass.losses) names.push_back(name);
  return names;
}

class AddedLosses : public ::testing::TestWithParam<RouterKind> {
 protected:
  static std::unique_ptr<Router> router() {
    const VitConfig c = config_of(GetParam());
    return make_router(c.moe, expert_dims(c), nullptr);
  }

  /// With every term that this router can have.
  static VitConfig config() {
    VitConfig c = config_of(GetParam());
    (GetParam() == RouterKind::switch_lbl ? c.moe.balance_weight : c.moe.extra_balance) = 0.3;
    if (router()->has_logits()) c.moe.z_weight = 0.1;
    if (router()->has_matrix()) c.moe.simbal_weight = 0.02;
    c.moe.variance_weight = 20;
    c.moe.orthogonal_output_weight = 0.5;
    return c;
  }
};

INSTANTIATE_TEST_SUITE_P(Routers, AddedLosses, ::testing::ValuesIn(choosing_routers()),
                         [](const auto& router) { return std::string(enum_name(router.param)); });

TEST_P(AddedLosses, HaveGradientsThatMatchDifferences) {
  TinyModel tiny(config());
  expect_gradients_match_differences(tiny);
}

TEST_P(AddedLosses, AreThereWhileTrainingAlone) {
  std::vector<std::string> names{"balance"};
  if (router()->has_logits()) names.emplace_back("z");
  if (router()->has_matrix()) names.emplace_back("simbal");
  names.insert(names.end(), {"variance", "overlap"});
  EXPECT_EQ(names_of_terms(config(), Mode::train), names);
  EXPECT_TRUE(names_of_terms(config(), Mode::eval).empty());
  EXPECT_TRUE(names_of_terms(config_of(GetParam()), Mode::train).empty());
}

/// Of ermoe, whose scores stand as logits, by hand.
TEST(AddedLossesOfErmoe, AreOfTheSoftmaxOfItsScores) {
  VitConfig config = config_of(RouterKind::ermoe);
  config.moe.extra_balance = 0.3;
  config.moe.z_weight = 0.1;
  TinyModel tiny(config);
  ForwardPass pass;
  tiny.model.forward(tiny.bench.ctx, Variable(tiny.images), pass);
  const auto s = to_doubles(pass.routes[0].scores);
  const auto counts = pass.routes[0].plan.counts.span<int32_t>();
  double balance = 0, z = 0;
  for (size_t n = 0; n < 20; ++n) {
    double sum = 0;
    for (size_t e = 0; e < 4; ++e) sum += std::exp(s[4 * n + e]);
    for (size_t e = 0; e < 4; ++e) balance += 4 * (counts[e] / 40.0) * std::exp(s[4 * n + e]) / sum / 20;
    z += std::log(sum) * std::log(sum) / 20;
  }
  ASSERT_EQ(pass.losses.size(), 2u);
  EXPECT_NEAR(scalar_of(pass.losses[0].second), 0.3 * balance, 1e-13);
  EXPECT_NEAR(scalar_of(pass.losses[1].second), 0.1 * z, 1e-13);
}

TEST(AddedLossesOfLinear, MakeItSwitch) {
  VitConfig linear = config_of(RouterKind::linear), switched = config_of(RouterKind::switch_lbl);
  linear.moe.extra_balance = switched.moe.balance_weight = 0.3;
  TinyModel a(linear), b(switched);
  a.differentiate();
  b.differentiate();
  expect_same(a.gradients(), b.gradients());
}

TEST(SimBal, IsTheSumOfAllDeviationsFromTheIdentity) {
  TestBench bench;
  const std::vector<double> rows{1, 2, 0, 1, -1, 1};
  const Tensor R = Tensor::from<double>(bench.allocator, {2, 3}, rows);
  // R Rᵀ = (5, -1; -1, 3)
  EXPECT_DOUBLE_EQ(scalar_of(orthonormality_loss(bench.ctx, Variable(R)).value), 4 + 1 + 1 + 2);
}

TEST(SimBal, TakesRowsToOrthonormalOnes) {
  VitConfig config = config_of(RouterKind::linear);
  config.moe.simbal_weight = 1;
  TinyModel tiny(config);
  Parameter& R = tiny.parameter("blocks.1.moe.router.weight");
  const auto loss = [&] { return scalar_of(orthonormality_loss(tiny.bench.ctx, Variable(R.value)).value); };
  const double before = loss();
  for (int step = 0; step < 400; ++step) {
    tiny.differentiate();
    tiny.model.discard_step();
    for (int64_t i = 0; i < R.shape.numel(); ++i) R.value.data<double>()[i] -= 3e-3 * R.grad.data<double>()[i];
    tiny.model.refresh(tiny.bench.ctx);
  }
  EXPECT_GT(before, 3);
  EXPECT_LT(loss(), 0.1 * before);
}

/// Of a layer's outputs by hand: the term is the mean over tokens of what two outputs have in common.
TEST(Overlap, IsOfTheChosenExpertsOutputsBeforeTheirWeights) {
  VitConfig config = config_of(RouterKind::linear);
  config.moe.orthogonal_output_weight = 2;
  TinyModel tiny(config);
  const auto term = [&] {
    ForwardPass pass;
    tiny.model.forward(tiny.bench.ctx, Variable(tiny.images), pass);
    return scalar_of(pass.losses.at(0).second);
  };
  const double before = term();
  EXPECT_GT(before, 0);
  // Twice the outputs, four times the squared projections; the router's weights, and so the layer's weights, are as they were.
  for (const char* name : {"blocks.1.moe.experts.s2", "blocks.1.moe.experts.b2"}) {
    Parameter& p = tiny.parameter(name);
    for (int64_t i = 0; i < p.shape.numel(); ++i) p.value.data<double>()[i] *= 2;
  }
  tiny.model.refresh(tiny.bench.ctx);
  EXPECT_NEAR(term(), 4 * before, 1e-4 * before);
}

struct Refused {
  std::string says;
  std::function<void(MoeConfig&)> change;
};

TEST(RefusedLosses, AreThoseThatSayNothing) {
  const Refused cases[] = {
      {"moe.extra_balance: moe.router switch_lbl", [](MoeConfig& m) { m.router = RouterKind::switch_lbl, m.extra_balance = 0.1; }},
      {"moe.extra_balance: 2 free experts", [](MoeConfig& m) { m.free_experts = 2, m.threshold = "0.1", m.extra_balance = 0.1; }},
      {"moe.z_weight: the logits of moe.router learned_cosine",
       [](MoeConfig& m) { m.router = RouterKind::learned_cosine, m.z_weight = 0.1; }},
      {"moe.z_weight: the logits of moe.router soft", [](MoeConfig& m) { m.router = RouterKind::soft, m.z_weight = 0.1; }},
      {"moe.extra_balance: with moe.router soft", [](MoeConfig& m) { m.router = RouterKind::soft, m.extra_balance = 0.1; }},
      {"moe.extra_balance: with moe.router expert_choice",
       [](MoeConfig& m) { m.router = RouterKind::expert_choice, m.extra_balance = 0.1; }},
      {"moe.simbal_weight: moe.router ermoe has no matrix", [](MoeConfig& m) { m.simbal_weight = 0.1; }},
      {"moe.orthogonal_output_weight: with moe.top_k 1", [](MoeConfig& m) { m.top_k = 1, m.orthogonal_output_weight = 0.1; }},
  };
  for (const Refused& refused : cases) {
    VitConfig config = tiny_config();
    refused.change(config.moe);
    try {
      Vit model(config);
      ADD_FAILURE() << "not refused: " << refused.says;
    } catch (const InputError& e) {
      EXPECT_TRUE(std::string(e.what()).starts_with(refused.says)) << e.what();
    }
  }
}

}  // namespace
}  // namespace ermoe::testing
