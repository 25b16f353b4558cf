// Compression of trained models: what stays is as it was, what is merged is a mean, copies are nearly what they copy.
#include "tools/compress.h"

#include "tests/models/tiny_model.h"

namespace ermoe::testing {
namespace {

/// A model in f32, and shares of its experts: 2 and 0 are used most.
struct Small {
  explicit Small(const VitConfig& config) : tiny(config, DType::f32) {
    tiny.differentiate();  // gives routers statistics
    tiny.model.accept_step(tiny.bench.ctx);
    tiny.model.refresh(tiny.bench.ctx);
    tiny.bench.ctx.mode = Mode::eval;
    for (size_t i = 0; i < tiny.model.moe_layers().size(); ++i) loads.push_back({0.3, 0.1, 0.4, 0.2});
  }
  Compressed compressed_all(const Compression& what) { return compress(tiny.bench.ctx, tiny.model, loads, what); }
  std::unique_ptr<Vit> compressed(const Compression& what) { return compressed_all(what).model; }
  Tensor run(Vit& model, ForwardPass& pass) { return model.forward(tiny.bench.ctx, Variable(tiny.images), pass).value; }
  Tensor run(Vit& model) {
    ForwardPass pass;
    return run(model, pass);
  }
  TinyModel tiny;
  ExpertLoads loads;
};

Tensor value_of(Vit& model, const std::string& name) {
  for (const Parameter* p : parameters_of(model))
    if (p->name == name) return p->value;
  for (const Buffer* b : buffers_of(model))
    if (b->name == name) return b->value;
  fail("no {}", name);
}

VitConfig config_of(RouterKind router) {
  VitConfig config = tiny_config();
  config.moe.router = router;
  return config;
}

TEST(ExpertsToKeep, AreThoseWithTheLargestLoads) {
  EXPECT_EQ(experts_to_keep({0.3, 0.1, 0.4, 0.2}, 2), (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(experts_to_keep({0.25, 0.25, 0.25, 0.25}, 3), (std::vector<int64_t>{0, 1, 2}));
}

class CompressedRouters : public ::testing::TestWithParam<RouterKind> {};
INSTANTIATE_TEST_SUITE_P(Routers, CompressedRouters,
                         ::testing::Values(RouterKind::ermoe, RouterKind::linear, RouterKind::vmoe, RouterKind::switch_lbl,
                                           RouterKind::bias_balanced, RouterKind::learned_cosine),
                         [](const auto& router) { return std::string(enum_name(router.param)); });

TEST_P(CompressedRouters, SayTheSameWhereNothingIsPruned) {
  for (const Basis basis : {Basis::leading, Basis::disjoint, Basis::untied}) {
    VitConfig config = config_of(GetParam());
    config.moe.basis = basis;
    Small small(config);
    const auto same = small.compressed({});
    EXPECT_EQ(same->config().moe.expert, ExpertKind::plain);
    EXPECT_LE(largest_difference(small.run(*same), small.run(small.tiny.model)), 2e-6) << enum_name(basis);
  }
}

/// Tokens whose experts all stay have the same ones afterwards, under new names.
TEST_P(CompressedRouters, KeepTheChoicesThatAreLeft) {
  Small small(config_of(GetParam()));
  const auto half = small.compressed({.prune = 0.5});
  EXPECT_EQ(half->config().moe.experts, 2);
  ForwardPass before, after;
  small.run(small.tiny.model, before);
  small.run(*half, after);
  const auto old = before.routes[0].plan.expert_ids.span<int32_t>(), now = after.routes[0].plan.expert_ids.span<int32_t>();
  int64_t seen = 0;
  for (size_t n = 0; n < old.size(); n += 2) {
    EXPECT_NE(now[n], now[n + 1]);
    if (old[n] % 2 != 0 || old[n + 1] % 2 != 0) continue;  // 0 and 2 stay
    ++seen;
    EXPECT_EQ(now[n], old[n] / 2);
    EXPECT_EQ(now[n + 1], old[n + 1] / 2);
  }
  EXPECT_GT(seen, 0);
}

TEST(Compress, DroppingLeavesTheOthersAlone) {
  VitConfig config = config_of(RouterKind::linear);
  config.moe.expert = ExpertKind::plain;
  Small small(config);
  const auto result = small.compressed({.prune = 0.25});
  const std::string prefix = "blocks.1.moe.experts.";
  for (const char* name : {"W1", "b1", "W2", "b2"}) {
    const Tensor before = value_of(small.tiny.model, prefix + name), after = value_of(*result, prefix + name);
    int64_t place = 0;
    for (const int64_t e : {0, 2, 3}) {
      EXPECT_TRUE(same_bits(before.slice(e, e + 1), after.slice(place, place + 1))) << name << " of expert " << e;
      ++place;
    }
  }
}

/// Expert 1 goes; two of its hidden units are nearly those of experts 2 and 3, the others like none.
TEST(Compress, MergedUnitsAreMeansByLoad) {
  VitConfig config = config_of(RouterKind::linear);
  config.moe.expert = ExpertKind::plain;
  Small small(config);
  const std::string prefix = "blocks.1.moe.experts.";
  const Tensor W1 = value_of(small.tiny.model, prefix + "W1"), b1 = value_of(small.tiny.model, prefix + "b1"),
               W2 = value_of(small.tiny.model, prefix + "W2");
  const int64_t F = W1.shape()[1], D = W1.shape()[2];
  const auto scaled = [&](int64_t from, int64_t unit, int64_t to, float factor) {  // of expert 1
    for (int64_t d = 0; d < D; ++d) {
      W1.data<float>()[(F + to) * D + d] = factor * W1.data<float>()[(from * F + unit) * D + d];
      W2.data<float>()[(D + d) * F + to] = factor * W2.data<float>()[(from * D + d) * F + unit];
    }
    b1.data<float>()[F + to] = factor * b1.data<float>()[from * F + unit];
  };
  scaled(2, 5, 0, 3);
  scaled(3, 7, 4, 2);
  small.tiny.model.refresh(small.tiny.bench.ctx);
  const Compressed all = small.compressed_all({.prune = 0.25, .method = Pruning::merge, .similarity = 0.95});
  EXPECT_EQ(all.merged_units, 2);
  EXPECT_EQ(all.lost_units, F - 2);
  Vit* const result = all.model.get();
  const Tensor merged = value_of(*result, prefix + "W1"), out = value_of(*result, prefix + "W2");
  for (int64_t f = 0; f < F; ++f)
    for (int64_t d = 0; d < D; ++d)
      for (const auto& [place, e] : {std::pair<int64_t, int64_t>{0, 0}, {1, 2}, {2, 3}}) {
        // Loads 0.1 and 0.4: (0.4 + 0.1 · 3) / 0.5; 0.1 and 0.2: (0.2 + 0.1 · 2) / 0.3.
        const double factor = e == 2 && f == 5 ? 1.4 : e == 3 && f == 7 ? 4.0 / 3 : 1;
        EXPECT_NEAR(merged.data<float>()[(place * F + f) * D + d], factor * static_cast<double>(W1.data<float>()[(e * F + f) * D + d]),
                    1e-6);
        EXPECT_NEAR(out.data<float>()[(place * D + d) * F + f], factor * static_cast<double>(W2.data<float>()[(e * D + d) * F + f]), 1e-6);
      }
}

TEST(Compress, CopiesTakeHalfTheTokensOfTheBusiestAndSayNearlyTheSame) {
  VitConfig config = config_of(RouterKind::linear);
  config.pool = Pool::average;  // a class token, the first of an image, goes to no copy
  Small small(config);
  const auto plain = small.compressed({}), with = small.compressed({.replicas = 2});
  EXPECT_EQ(to_doubles(value_of(*with, "blocks.1.moe.replica_of")), (std::vector<double>{0, 2}));
  ForwardPass before, after;
  const Tensor wanted = small.run(*plain, before), got = small.run(*with, after);
  EXPECT_LE(largest_difference(got, wanted), 0.02 * largest_of(wanted));
  EXPECT_GT(largest_difference(got, wanted), 0);  // int8 is no float
  const auto old = before.routes[0].plan.counts.span<int32_t>(), now = after.routes[0].plan.counts.span<int32_t>();
  ASSERT_EQ(now.size(), 6u);
  EXPECT_EQ(now[0] + now[4], old[0]);
  EXPECT_EQ(now[2] + now[5], old[2]);
  EXPECT_EQ(now[1], old[1]);
  EXPECT_GT(now[4], 0);
  EXPECT_GT(now[5], 0);
}

TEST(Compress, ReplicasHoldWholeMultiplesOfAStep) {
  Small small(config_of(RouterKind::linear));
  const auto with = small.compressed({.replicas = 1});
  const Tensor W1 = value_of(*with, "blocks.1.moe.experts.W1");
  const int64_t F = W1.shape()[1], D = W1.shape()[2];
  for (int64_t f = 0; f < F; ++f) {
    const float *copy = W1.data<float>() + (4 * F + f) * D, *original = W1.data<float>() + (2 * F + f) * D;
    float largest = 0;
    for (int64_t d = 0; d < D; ++d) largest = std::max(largest, std::abs(original[d]));
    for (int64_t d = 0; d < D; ++d) {
      const float steps = copy[d] / (largest / 127);
      EXPECT_NEAR(steps, std::round(steps), 1e-3);
      EXPECT_LE(std::abs(copy[d] - original[d]), 0.501 * largest / 127);
    }
  }
}

TEST(Compress, FreeExpertsStay) {
  VitConfig config = tiny_config();
  config.moe.free_experts = 2;
  config.moe.threshold = "0.1";
  Small small(config);
  const auto same = small.compressed({}), half = small.compressed({.prune = 0.5});
  EXPECT_LE(largest_difference(small.run(*same), small.run(small.tiny.model)), 2e-6);
  EXPECT_TRUE(same_bits(value_of(*same, "blocks.1.moe.experts.W1").slice(4, 6), value_of(*half, "blocks.1.moe.experts.W1").slice(2, 4)));
}

TEST(Compress, RefusesWhatLeavesTooFew) {
  const auto refusal = [](const VitConfig& config, const Compression& what) -> std::string {
    try {
      compressed_config(config, what);
    } catch (const InputError& e) {
      return e.what();
    }
    return "accepted";
  };
  const VitConfig config = tiny_config();
  EXPECT_EQ(refusal(config, {.prune = 0.5}), "accepted");
  EXPECT_TRUE(refusal(config, {.prune = 0.75}).starts_with("--prune 0.75: 1 of 4 experts would be left"));
  EXPECT_TRUE(refusal(config, {.prune = 0.5, .replicas = 3}).starts_with("--replicate 3: a layer has 2 experts"));
  VitConfig dense = config;
  dense.moe.layers = "none";
  EXPECT_TRUE(refusal(dense, {}).starts_with("the model has no experts"));
  VitConfig copied = config;
  copied.moe.replicas = 1;
  EXPECT_TRUE(refusal(copied, {}).starts_with("the model has 1 copies"));
  VitConfig soft = config_of(RouterKind::soft);
  soft.moe.top_k = 1;
  EXPECT_EQ(refusal(soft, {}), "accepted");
  EXPECT_TRUE(refusal(soft, {.prune = 0.5}).starts_with("moe.router soft: "));
  EXPECT_TRUE(refusal(soft, {.replicas = 1}).starts_with("moe.router soft: "));
  VitConfig mixed = config;
  mixed.moe.layer = ExpertLayer::cp;
  EXPECT_TRUE(refusal(mixed, {}).starts_with("moe.layer cp: "));
}

/// What is written can be trained and loaded: its settings go together.
TEST(Compress, SettingsFitTheExpertsThatAreLeft) {
  VitConfig config = config_of(RouterKind::linear);
  config.moe.hidden = 0;
  config.moe.adapter = 8;
  config.moe.expert_dropout = 0.5;
  config.moe.expert_clusters = 2;
  const VitConfig left = compressed_config(config, {.prune = 0.25});
  EXPECT_EQ(left.moe.hidden, 0);
  EXPECT_EQ(left.moe.adapter, 8);
  EXPECT_EQ(left.moe.expert_dropout, 0);
  EXPECT_EQ(left.moe.expert_clusters, 1);
  check_model(left);
}

}  // namespace
}  // namespace ermoe::testing
