// Routing by energy along a shared basis: the equation by hand, the basis on its manifold, and experts as adapters beside the dense
// network.
#include "models/summary.h"
#include "ops/orthogonal_step.h"
#include "tests/models/tiny_training.h"

namespace ermoe::testing {
namespace {

VitConfig config_of(int64_t rank = 6) {
  VitConfig config = tiny_config();
  config.moe.router = RouterKind::emoe;
  config.moe.emoe_rank = rank;
  return config;
}

VitConfig with_adapters() {
  VitConfig config = config_of();
  config.moe.hidden = 0;
  config.moe.adapter = 6;
  config.moe.top_k = 1;
  config.moe.layers = "last:1";
  return config;
}

Parameter& of_router(TinyModel& tiny, const std::string& name) { return tiny.parameter("blocks.1.moe.router." + name); }

/// p (N, E) of tokens x (N, D), by the equation.
std::vector<double> probabilities_by_hand(TinyModel& tiny, const std::vector<double>& x, double temperature) {
  const Parameter& basis = of_router(tiny, "basis");
  const auto D = static_cast<size_t>(basis.shape[0]), r = static_cast<size_t>(basis.shape[1]), E = size_t{4}, N = x.size() / D;
  const auto q = to_doubles(basis.value), M = to_doubles(of_router(tiny, "mixing").value),
             gamma = to_doubles(of_router(tiny, "gamma").value), b = to_doubles(of_router(tiny, "bias").value);
  std::vector<double> p(N * E);
  for (size_t n = 0; n < N; ++n) {
    std::vector<double> z(r), l(b);
    double total = 1e-6, sum = 0;
    for (size_t j = 0; j < r; ++j) {
      for (size_t d = 0; d < D; ++d) z[j] += q[d * r + j] * x[n * D + d];
      total += z[j] * z[j];
    }
    for (size_t j = 0; j < r; ++j) {
      double all = 0;
      for (size_t e = 0; e < E; ++e) all += std::exp(M[j * E + e]);
      for (size_t e = 0; e < E; ++e) l[e] += gamma[j] * std::exp(M[j * E + e]) / all * z[j] * z[j] / total;
    }
    for (size_t e = 0; e < E; ++e) sum += std::exp(l[e] / temperature);
    for (size_t e = 0; e < E; ++e) p[n * E + e] = std::exp(l[e] / temperature) / sum;
  }
  return p;
}

Routing route(TinyModel& tiny, const Tensor& x) {
  PinnedSelection pinned;
  return tiny.model.moe_layers()[0]->router().route(
      tiny.bench.ctx, {.x = Variable(x), .c = {}, .images = 4, .allow = {}, .statistics = Statistics::read}, pinned);
}

TEST(Emoe, WeighsByTheSoftmaxOfMixedEnergies) {
  for (const double temperature : {1.0, 0.25}) {
    VitConfig config = config_of();
    config.moe.emoe_temperature = temperature;
    TinyModel tiny(config);
    const Tensor x = random_input(tiny.bench.ctx, {{20, 16}}, DType::f64, RngKey{5});
    const Routing routing = route(tiny, x);
    const auto want = probabilities_by_hand(tiny, to_doubles(x), temperature), got = to_doubles(routing.scores),
               weights = to_doubles(routing.weights.value);
    const auto ids = routing.plan.expert_ids.span<int32_t>();
    for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-14);
    for (size_t n = 0; n < 20; ++n)
      for (size_t k = 0; k < 2; ++k) EXPECT_EQ(weights[2 * n + k], got[4 * n + static_cast<size_t>(ids[2 * n + k])]);
  }
}

TEST(Emoe, AConstantMixtureSendsEveryTokenToTheFirstExpert) {
  TinyModel tiny(config_of());
  fill(of_router(tiny, "mixing").value, 0.7);
  fill(of_router(tiny, "bias").value, 0);
  const Routing routing = route(tiny, random_input(tiny.bench.ctx, {{20, 16}}, DType::f64, RngKey{5}));
  for (size_t n = 0; n < 20; ++n) EXPECT_EQ(routing.plan.expert_ids.span<int32_t>()[2 * n], 0);
}

TEST(Emoe, LengthsDecideNothing) {
  TinyModel tiny(config_of());
  const Tensor x = random_input(tiny.bench.ctx, {{20, 16}}, DType::f64, RngKey{5}), longer = x.clone();
  for (double& v : longer.span<double>()) v *= 1000;
  EXPECT_LE(largest_difference(route(tiny, x).scores, route(tiny, longer).scores), 1e-6);  // what is added to Σ z² is felt
}

TEST(Emoe, ABasisIsNoWiderThanTheModel) {
  TinyModel wide(config_of(128)), narrow(config_of(3));
  EXPECT_EQ(of_router(wide, "basis").shape, Shape({16, 16}));
  EXPECT_EQ(of_router(narrow, "basis").shape, Shape({16, 3}));
  EXPECT_EQ(of_router(narrow, "mixing").shape, Shape({3, 4}));
}

TEST(Emoe, TheBasisStaysOrthonormalAndMoves) {
  TinyModel tiny(config_of(), DType::f32);
  const Tensor before = of_router(tiny, "basis").value.clone();
  TinyTraining training(tiny, {.lr = 1e-2});
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(training.step().accepted);
  EXPECT_LE(orthogonality_residual(tiny.bench.ctx, of_router(tiny, "basis").value), 5e-6);
  EXPECT_GT(largest_difference(before, of_router(tiny, "basis").value), 1e-3);
}

TEST(Adapters, SeeThePatchesAloneAndStandBesideTheDenseNetwork) {
  VitConfig dense_config = with_adapters();
  dense_config.moe.layers = "none";
  TinyModel sparse(with_adapters()), dense(dense_config);
  for (Parameter* p : dense.trained()) copy(sparse.parameter(p->name).value, p->value);
  // In the last block they change patches that nobody reads any more: the head reads the class token.
  EXPECT_EQ(sparse.total_loss(), dense.total_loss());
  sparse.differentiate();
  EXPECT_EQ(sparse.routes[0].plan.tokens, 16);  // 4 images of 2 x 2 patches
  EXPECT_EQ(sparse.model.routed_tokens(), 4);
  EXPECT_EQ(sparse.model.routed_prefix_tokens(), 0);
  EXPECT_EQ(dense.model.tokens(), 5);
}

TEST(Adapters, AddTheirScaledWeightedOutput) {
  VitConfig config = with_adapters();
  config.pool = Pool::average;
  const auto loss_at = [&](double scale) {
    config.moe.adapter_scale = scale;
    TinyModel tiny(config);
    return tiny.total_loss();
  };
  config.moe.layers = "none";
  const double without = loss_at(1);
  config.moe.layers = "last:1";
  EXPECT_GT(std::abs(loss_at(1) - without), 1e-4);
  EXPECT_NEAR(loss_at(1e-9), without, 1e-8);
  // The change is of first order in a small scale.
  EXPECT_NEAR((loss_at(2e-5) - without) / (loss_at(1e-5) - without), 2, 1e-3);
}

TEST(Adapters, GoWithEveryRouter) {
  for (const RouterKind router : all_routers()) {
    VitConfig config = with_adapters();
    config.moe.router = router;
    config.moe.layers = "last:2";
    config.moe.top_k = 2;
    TinyModel tiny(config, DType::f32);
    TinyTraining training(tiny, {.lr = 3e-3, .weight_decay = 0});
    const double first = training.step().loss;
    double last = first;
    for (int i = 0; i < 20; ++i) {
      const StepReport report = training.step();
      ASSERT_TRUE(report.accepted) << enum_name(router) << ": " << report.fault;
      last = report.loss;
    }
    EXPECT_LT(last, 0.8 * first) << enum_name(router);
  }
}

TEST(Adapters, CostTheDenseNetworkAndThemselves) {
  VitConfig config = with_adapters();
  Vit sparse(config);
  const ModelSummary with = summarize(sparse);
  config.moe.layers = "none";
  Vit dense(config);
  const ModelSummary without = summarize(dense);
  EXPECT_EQ(with.forward_flops - without.forward_flops, 4.0 * 4 * 16 * 6 + with.scoring_flops);
  EXPECT_EQ(with.scoring_flops, 4.0 * 2 * 6 * (16 + 4));
}

void expect_refused(const VitConfig& config, const std::string& start) {
  try {
    Vit model(config);
    ADD_FAILURE() << "not refused: " << start;
  } catch (const InputError& e) {
    EXPECT_TRUE(std::string(e.what()).starts_with(start)) << e.what();
  }
}

TEST(Adapters, AWidthThatIsGivenTwiceIsRefused) {
  VitConfig config = with_adapters();
  config.moe.hidden = 24;
  expect_refused(config, "moe.hidden: experts beside the dense network have the width 6 of moe.adapter");
}

}  // namespace
}  // namespace ermoe::testing
