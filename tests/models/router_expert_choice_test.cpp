// Experts choose tokens: how many, which, with what weight, and among whom.
#include "tests/models/tiny_training.h"

namespace ermoe::testing {
namespace {

VitConfig config_of(int64_t top_k = 2, int64_t choice_images = 0) {
  VitConfig config = tiny_config();
  config.moe.router = RouterKind::expert_choice;
  config.moe.top_k = top_k;
  config.moe.choice_images = choice_images;
  return config;
}

Parameter& weight_of(TinyModel& tiny) { return tiny.parameter("blocks.1.moe.router.weight"); }

std::vector<int32_t> counts_of(const RoutingRecord& route) { return to_vector<int32_t>(route.plan.counts); }

/// The layer by its equation, token by token: probabilities are the record's, experts are run on single rows.
std::vector<double> by_hand(TinyModel& tiny, const Tensor& x, const RoutingRecord& route, int64_t group) {
  const ExecContext& ctx = tiny.bench.ctx;
  const int64_t N = 20, E = 4, D = 16, K = tiny.model.config().moe.top_k;
  const auto p = to_doubles(route.scores);
  const auto at = [&](int64_t n, int64_t e) { return p[static_cast<size_t>(n * E + e)]; };
  std::vector<double> y(static_cast<size_t>(N * D));
  for (int64_t e = 0; e < E; ++e) {
    Tensor ids = ctx.empty({N, 1}, DType::i32);
    for (int64_t n = 0; n < N; ++n) ids.data<int32_t>()[n] = static_cast<int32_t>(e);
    const auto f = to_doubles(tiny.model.moe_layers()[0]->experts().forward(ctx, Variable(x), make_plan(ctx, ids, E)).value);
    for (int64_t n = 0; n < N; ++n) {
      const int64_t first = n / group * group, size = std::min(group, N - first);
      int64_t before = 0;
      for (int64_t m = first; m < first + size; ++m) before += at(m, e) > at(n, e);
      if (before * E >= K * size) continue;  // c·n/E are taken, rounded up
      for (int64_t d = 0; d < D; ++d) y[static_cast<size_t>(n * D + d)] += at(n, e) * f[static_cast<size_t>(n * D + d)];
    }
  }
  return y;
}

TEST(ExpertChoice, IsItsEquation) {
  for (const int64_t K : {1, 2, 3})
    for (const int64_t images : {0, 1, 3}) {
      TinyModel tiny(config_of(K, images));
      const Tensor x = random_input(tiny.bench.ctx, {{4, 5, 16}}, DType::f64, RngKey{8});
      ForwardPass pass;
      PinnedSelection pinned;
      const Variable y = tiny.model.moe_layers()[0]->forward(tiny.bench.ctx, Variable(x), {}, pass, pinned);
      const auto want = by_hand(tiny, x.reshape({20, 16}), pass.routes[0], images == 0 ? 20 : 5 * images);
      EXPECT_LE(normalised_error(to_doubles(y.value), want), 1e-26) << K << " experts, groups of " << images;
    }
}

TEST(ExpertChoice, EveryExpertTakesAsManyTokens) {
  const std::pair<VitConfig, int32_t> cases[] = {{config_of(2), 10},         // 2 · 20 / 4
                                                 {config_of(1), 5},          // 1 · 20 / 4
                                                 {config_of(2, 1), 4 * 3},   // 2 · 5 / 4 of each image, rounded up
                                                 {config_of(1, 3), 4 + 2}};  // 1 · 15 / 4 and 1 · 5 / 4
  for (const auto& [config, taken] : cases) {
    TinyModel tiny(config);
    tiny.differentiate();
    EXPECT_EQ(counts_of(tiny.routes[0]), std::vector<int32_t>(4, taken));
    EXPECT_EQ(tiny.routes[0].plan.rows(), 4 * taken);
  }
}

TEST(ExpertChoice, ATokenHasItsLikeliestExpertFirstAndMayHaveNone) {
  TinyModel tiny(config_of(1));
  tiny.differentiate();
  const auto ids = tiny.routes[0].plan.expert_ids.span<int32_t>();
  const auto weights = to_doubles(tiny.routes[0].weights), p = to_doubles(tiny.routes[0].scores);
  int none = 0, several = 0;
  for (size_t n = 0; n < 20; ++n) {
    none += ids[4 * n] < 0;
    several += ids[4 * n + 1] >= 0;
    for (size_t k = 0; k < 4; ++k) {
      if (k > 0) {
        EXPECT_GE(weights[4 * n + k - 1], weights[4 * n + k]);
      }
      EXPECT_EQ(weights[4 * n + k], ids[4 * n + k] < 0 ? 0 : p[4 * n + static_cast<size_t>(ids[4 * n + k])]);
    }
  }
  EXPECT_GT(none, 0);
  EXPECT_GT(several, 0);
}

TEST(ExpertChoice, TiesGoToTheLowerToken) {
  TinyModel tiny(config_of(1));
  fill(weight_of(tiny).value, 0);  // every probability is a quarter
  tiny.differentiate();
  const auto ids = tiny.routes[0].plan.expert_ids.span<int32_t>();
  for (size_t n = 0; n < 20; ++n)
    for (size_t k = 0; k < 4; ++k) EXPECT_EQ(ids[4 * n + k], n < 5 ? static_cast<int32_t>(k) : -1);
}

TEST(ExpertChoice, GradientsMatchDifferencesWhereAllImagesCompete) {
  for (const int64_t K : {1, 2}) {
    TinyModel tiny(config_of(K));
    expect_gradients_match_differences(tiny);
  }
}

TEST(ExpertChoice, MoreExpertsThanTokensTakeOneEach) {
  VitConfig config = config_of(1, 1);
  config.moe.experts = 7;  // five tokens an image
  TinyModel tiny(config);
  expect_gradients_match_differences(tiny);
  EXPECT_EQ(counts_of(tiny.routes[0]), std::vector<int32_t>(7, 4));
}

TEST(ExpertChoice, AMaskLeavesSlotsEmpty) {
  TinyModel tiny(config_of());
  tiny.allow = Tensor::zeros(tiny.bench.allocator, {20, 4}, DType::u8);
  for (int64_t n = 0; n < 20; ++n) {
    tiny.allow.data<uint8_t>()[n * 4 + 1] = 1;
    tiny.allow.data<uint8_t>()[n * 4 + 2] = n < 7;
  }
  expect_gradients_match_differences(tiny);
  EXPECT_EQ(counts_of(tiny.routes[0]), (std::vector<int32_t>{0, 10, 7, 0}));
}

TEST(ExpertChoice, AnImageDependsOnOthersUnlessItIsAGroup) {
  for (const bool alone : {false, true}) {
    TinyModel tiny(config_of(1, alone ? 1 : 0));
    const auto logits_of = [&](const Tensor& images) {
      ForwardPass pass;
      return to_doubles(tiny.model.forward(tiny.bench.ctx, Variable(images), pass).value.slice(0, 1));
    };
    const auto beside = logits_of(tiny.images), by_itself = logits_of(tiny.images.slice(0, 1));
    const double moved = normalised_error(beside, by_itself);
    if (alone)
      EXPECT_LE(moved, 1e-24);
    else
      EXPECT_GT(moved, 1e-8);
  }
}

TEST(ExpertChoice, WhatIsNotANumberIsFlaggedAndTakenByNobody) {
  TinyModel tiny(config_of());
  tiny.images.data<double>()[3] = NAN;  // all tokens of the first image
  ForwardPass pass;
  tiny.model.forward(tiny.bench.ctx, Variable(tiny.images), pass);
  EXPECT_EQ(pass.routes[0].nonfinite.data<int32_t>()[0], 1);
  const auto ids = pass.routes[0].plan.expert_ids.span<int32_t>();
  for (size_t slot = 0; slot < 20; ++slot) EXPECT_EQ(ids[slot], -1);
  EXPECT_EQ(counts_of(pass.routes[0]), std::vector<int32_t>(4, 10));  // of the other three
}

TEST(ExpertChoice, RepeatsBitForBit) {
  for (const DType dtype : {DType::f32, DType::f64}) {
    TinyModel a(config_of(), dtype), b(config_of(), dtype);
    a.differentiate();
    b.differentiate();
    expect_same(a.gradients(), b.gradients());
  }
}

TEST(ExpertChoice, ShufflingSendsTokensToOtherExperts) {
  TinyModel tiny(config_of());
  ForwardPass straight, shuffled;
  shuffled.shuffle_experts = true;
  const auto a = to_doubles(tiny.model.forward(tiny.bench.ctx, Variable(tiny.images), straight).value);
  const auto b = to_doubles(tiny.model.forward(tiny.bench.ctx, Variable(tiny.images), shuffled).value);
  EXPECT_GT(normalised_error(a, b), 1e-10);
  EXPECT_EQ(counts_of(straight.routes[0]), counts_of(shuffled.routes[0]));
  EXPECT_EQ(straight.routes[0].plan.rows(), shuffled.routes[0].plan.rows());
}

}  // namespace
}  // namespace ermoe::testing
