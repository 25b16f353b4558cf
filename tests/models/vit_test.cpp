// The whole model: its gradients against differences, recomputation, micro-batches, the names of its tensors.
#include "models/vit.h"

#include "ops/orthogonal_step.h"
#include "tests/models/tiny_model.h"

namespace ermoe::testing {
namespace {

struct ModelCase {
  std::string name;
  std::function<void(VitConfig&)> change;
};

void PrintTo(const ModelCase& model, std::ostream* out) { *out << model.name; }

std::string name_of_case(const ::testing::TestParamInfo<ModelCase>& info) { return info.param.name; }

VitConfig config_of(const ModelCase& model) {
  VitConfig config = tiny_config();
  model.change(config);
  return config;
}

/// Routers other than ermoe.
std::vector<ModelCase> router_cases() {
  return {
      {"linear_router", [](VitConfig& c) { c.moe.router = RouterKind::linear; }},
      {"vmoe_router",
       [](VitConfig& c) {
         c.moe.router = RouterKind::vmoe;
         c.moe.group_images = 2;
         c.moe.importance_weight = 0.3;
         c.moe.load_weight = 0;  // holds its threshold constant, so differences of the loss see another gradient
       }},
      {"switch_router_plain_experts",
       [](VitConfig& c) {
         c.moe.router = RouterKind::switch_lbl;
         c.moe.expert = ExpertKind::plain;
         c.moe.balance_weight = 0.3;
         c.moe.z_weight = 0.1;
       }},
      {"bias_balanced_router", [](VitConfig& c) { c.moe.router = RouterKind::bias_balanced; }},
      {"bias_balanced_router_softmax_gate",
       [](VitConfig& c) {
         c.moe.router = RouterKind::bias_balanced;
         c.moe.gate = Gate::softmax;
         c.moe.bias_rate = 0.05;
       }},
      {"learned_cosine_router",
       [](VitConfig& c) {
         c.moe.router = RouterKind::learned_cosine;
         c.moe.cosine_width = 6;
       }},
      {"soft_router", [](VitConfig& c) { c.moe.router = RouterKind::soft; }},
      {"soft_router_one_slot_plain_experts",
       [](VitConfig& c) {
         c.moe.router = RouterKind::soft;
         c.moe.expert = ExpertKind::plain;
         c.moe.soft_slots = 1;
       }},
      {"expert_choice_router",
       [](VitConfig& c) {
         c.moe.router = RouterKind::expert_choice;
         c.moe.choice_images = 1;
       }},
      {"expert_choice_router_pairs_of_images",
       [](VitConfig& c) {
         c.moe.router = RouterKind::expert_choice;
         c.moe.choice_images = 2;
         c.moe.z_weight = 0.1;
         c.moe.top_k = 1;
       }},
  };
}

/// Layers that differ from the default in more than a setting of it.
std::vector<ModelCase> variant_cases() {
  return {
      {"emoe_router",
       [](VitConfig& c) {
         c.moe.router = RouterKind::emoe;
         c.moe.emoe_rank = 6;
       }},
      {"emoe_adapters_square_basis",
       [](VitConfig& c) {
         c.moe.router = RouterKind::emoe;
         c.moe.layers = "last:2";
         c.moe.top_k = 1;
         c.moe.hidden = 0;
         c.moe.adapter = 6;
         c.moe.adapter_scale = 0.5;
       }},
      {"adapters_average_pool",
       [](VitConfig& c) {
         c.moe.hidden = 0;
         c.moe.adapter = 20;
         c.pool = Pool::average;
       }},
      {"prototype_router",
       [](VitConfig& c) {
         c.moe.router = RouterKind::prototype;
         c.moe.prototype_spectrum = 0.3;
       }},
      {"mixed_experts",
       [](VitConfig& c) {
         c.moe.layer = ExpertLayer::cp;
         c.moe.layers = "0,1";
         c.moe.cp_rank = 5;
       }},
      {"expert_dropout",
       [](VitConfig& c) {
         c.moe.expert_dropout = 0.5;
         c.moe.expert_clusters = 2;
       }},
  };
}

std::vector<ModelCase> model_cases() {
  std::vector<ModelCase> cases = router_cases();
  const std::vector<ModelCase> others = {
      {"defaults", [](VitConfig&) {}},
      {"every_small_layer",
       [](VitConfig& c) {
         c.qk_norm = true;
         c.layer_scale = 0.5;
         c.dropout = 0.1;
         c.drop_path = 0.2;
       }},
      {"average_pool_sincos",
       [](VitConfig& c) {
         c.pool = Pool::average;
         c.positions = Positions::sincos;
         c.moe.context = Context::attention_mean;
       }},
      {"disjoint_subspace_free",
       [](VitConfig& c) {
         c.moe.basis = Basis::disjoint;
         c.moe.score = Score::subspace_cosine;
         c.moe.threshold = "quantile:0.3";
         c.moe.free_experts = 2;
         c.moe.combine = Combine::softmax;
       }},
      {"disjoint_subspace_share",  // the defaults of MoeConfig
       [](VitConfig& c) {
         c.moe.basis = Basis::disjoint;
         c.moe.score = Score::subspace_cosine;
         c.moe.combine = Combine::share;
       }},
      {"share_with_free_experts",
       [](VitConfig& c) {
         c.moe.threshold = "quantile:0.3";
         c.moe.free_experts = 2;
         c.moe.combine = Combine::share;
         c.moe.combine_scale = 3;
       }},
      {"disjoint_low_rank_factors",
       [](VitConfig& c) {
         c.moe.basis = Basis::disjoint;
         c.moe.rank = 4;  // V1 is the basis alone, nothing is left beside it
       }},
      {"untied_raw",
       [](VitConfig& c) {
         c.moe.basis = Basis::untied;
         c.moe.combine = Combine::raw;
         c.moe.center = false;
         c.moe.standardize = false;
       }},
      {"untied_plain_experts",
       [](VitConfig& c) {
         c.moe.expert = ExpertKind::plain;
         c.moe.basis = Basis::untied;
       }},
      {"two_moe_layers_low_rank",
       [](VitConfig& c) {
         c.moe.layers = "0,1";
         c.moe.rank = 7;
       }},
      {"dense", [](VitConfig& c) { c.moe.layers = "none"; }},
      {"cubes", [](VitConfig& c) { c.dimensions = 3; }},
      {"boxes_flattened",
       [](VitConfig& c) {
         c.dimensions = 3;
         c.volume = {4, 8, 12};
         c.image_size = 0;
         c.pool = Pool::flatten;
       }},
      {"boxes_average_pool_sincos",
       [](VitConfig& c) {
         c.dimensions = 3;
         c.volume = {4, 8, 12};
         c.image_size = 0;
         c.width = 12;
         c.pool = Pool::average;
         c.positions = Positions::sincos;
       }},
  };
  cases.insert(cases.end(), others.begin(), others.end());
  std::ranges::copy(variant_cases(), std::back_inserter(cases));
  return cases;
}

class WholeModel : public ::testing::TestWithParam<ModelCase> {
 protected:
  /// Gives the routers statistics, so that centering and calibration take part.
  static void collect_statistics(TinyModel& tiny) {
    tiny.total_loss();
    tiny.differentiate();
    tiny.model.accept_step(tiny.bench.ctx);
    tiny.model.refresh(tiny.bench.ctx);
  }
};

TEST_P(WholeModel, GradientsMatchDifferences) {
  TinyModel tiny(config_of(GetParam()));
  collect_statistics(tiny);
  expect_gradients_match_differences(tiny);
}

TEST_P(WholeModel, RecomputationChangesNoBit) {
  VitConfig config = config_of(GetParam());
  TinyModel kept(config, DType::f32);
  config.recompute = true;
  TinyModel recomputed(config, DType::f32);
  for (TinyModel* tiny : {&kept, &recomputed}) {
    collect_statistics(*tiny);
    tiny->differentiate();
  }
  expect_same(kept.gradients(), recomputed.gradients());
  expect_same(kept.values(), recomputed.values());
  ASSERT_EQ(kept.routes.size(), recomputed.routes.size());
  for (size_t i = 0; i < kept.routes.size(); ++i) {
    EXPECT_TRUE(same_bits(kept.routes[i].plan.expert_ids, recomputed.routes[i].plan.expert_ids));
    EXPECT_TRUE(same_bits(kept.routes[i].weights, recomputed.routes[i].weights));
  }
  for (TinyModel* tiny : {&kept, &recomputed}) tiny->model.accept_step(tiny->bench.ctx);
  expect_same(kept.values(), recomputed.values());  // statistics were collected once
}

TEST_P(WholeModel, TwoMicroBatchesAreOneBatch) {
  VitConfig config = config_of(GetParam());
  config.dropout = config.drop_path = 0;  // draws differ between the two by their nature
  const bool terms_of_batch = config.moe.router == RouterKind::vmoe || config.moe.router == RouterKind::switch_lbl;
  if (terms_of_batch) config.moe.router = RouterKind::linear;
  TinyModel whole(config), parts(config);
  for (TinyModel* tiny : {&whole, &parts}) {
    collect_statistics(*tiny);
    tiny->differentiate(tiny == &parts ? 2 : 1);
    tiny->model.accept_step(tiny->bench.ctx);
  }
  const Snapshot one = whole.gradients(), two = parts.gradients();
  for (const auto& [name, grad] : one) EXPECT_LE(largest_difference(grad, two.at(name)), 1e-13 * std::max(1.0, largest_of(grad))) << name;
  const Snapshot statistics = whole.values(), from_parts = parts.values();
  for (const auto& [name, value] : statistics) EXPECT_LE(largest_difference(value, from_parts.at(name)), 1e-13) << name;
}

INSTANTIATE_TEST_SUITE_P(Vit, WholeModel, ::testing::ValuesIn(model_cases()), name_of_case);

TEST(PenaltyGradients, MatchDifferencesOffTheManifold) {
  for (Basis basis : {Basis::leading, Basis::disjoint, Basis::untied}) {
    VitConfig config = tiny_config();
    config.moe.orthogonality = Orthogonality::penalty;
    config.moe.penalty = 0.05;
    config.moe.basis = basis;
    TinyModel tiny(config);
    tiny.differentiate();
    const Snapshot with = tiny.gradients();
    for (Parameter* p : tiny.trained()) {
      const bool matrix = p->role == Parameter::Role::factor && !p->name.ends_with(".s1") && !p->name.ends_with(".s2");
      if (!matrix) continue;
      // The loss's own gradient is the rest of it: differences of the penalty alone must make up what the mode adds.
      const int64_t i = p->shape.numel() / 2;
      const Tensor ignored = p->value.clone();
      double& x = p->value.data<double>()[i];
      const double before = x, h = 1e-5;
      const auto at = [&](double value) {
        x = value;
        tiny.model.refresh(tiny.bench.ctx);
        return tiny.total_loss() + penalty_gradient(tiny.bench.ctx, p->value, config.moe.penalty, ignored);
      };
      const double numeric = (at(before + h) - at(before - h)) / (2 * h);
      x = before;
      tiny.model.refresh(tiny.bench.ctx);
      EXPECT_NEAR(numeric, with.at(p->name).data<double>()[i], 1e-7) << p->name;
    }
  }
}

std::vector<std::string> state_names(const VitConfig& config) {
  Vit model(config);
  std::vector<std::string> names;
  model.visit("", {.parameter =
                       [&](Parameter& p) {
                         if (p.role != Parameter::Role::derived) names.push_back(p.name);
                       },
                   .buffer = [&](Buffer& b) { names.push_back(b.name); }});
  return names;
}

TEST(Names, OfADenseModelAreThoseOfTimm) {
  VitConfig config = tiny_config();
  config.depth = 1;
  config.moe.layers = "none";
  const std::vector<std::string> expected = {
      "cls_token",
      "pos_embed",
      "patch_embed.proj.weight",
      "patch_embed.proj.bias",
      "blocks.0.norm1.weight",
      "blocks.0.norm1.bias",
      "blocks.0.attn.qkv.weight",
      "blocks.0.attn.qkv.bias",
      "blocks.0.attn.proj.weight",
      "blocks.0.attn.proj.bias",
      "blocks.0.norm2.weight",
      "blocks.0.norm2.bias",
      "blocks.0.mlp.fc1.weight",
      "blocks.0.mlp.fc1.bias",
      "blocks.0.mlp.fc2.weight",
      "blocks.0.mlp.fc2.bias",
      "norm.weight",
      "norm.bias",
      "head.weight",
      "head.bias",
  };
  EXPECT_EQ(state_names(config), expected);
}

TEST(Names, OfOptionalLayersAreThoseOfTimm) {
  VitConfig config = tiny_config();
  config.depth = 1;
  config.moe.layers = "none";
  config.qk_norm = true;
  config.layer_scale = 1e-5;
  config.pool = Pool::average;
  config.positions = Positions::sincos;
  const std::vector<std::string> names = state_names(config);
  for (const char* name : {"blocks.0.attn.q_norm.weight", "blocks.0.attn.q_norm.bias", "blocks.0.attn.k_norm.weight",
                           "blocks.0.attn.k_norm.bias", "blocks.0.ls1.gamma", "blocks.0.ls2.gamma", "fc_norm.weight", "fc_norm.bias"})
    EXPECT_EQ(std::ranges::count(names, name), 1) << name;
  for (const char* name : {"cls_token", "pos_embed", "norm.weight", "norm.bias"}) EXPECT_EQ(std::ranges::count(names, name), 0) << name;
}

TEST(Names, OfExpertsSayLayerAndFactor) {
  const std::vector<std::string> names = state_names(tiny_config());
  std::vector<std::string> of_experts;
  for (const std::string& name : names)
    if (name.starts_with("blocks.1.moe.")) of_experts.push_back(name.substr(13));
  const std::vector<std::string> expected = {"router.mean_x",  "router.mean_c", "router.score_mean", "router.score_var", "router.histogram",
                                             "router.updates", "experts.b1",    "experts.b2",        "experts.U1",       "experts.s1",
                                             "experts.V1",     "experts.U2",    "experts.s2",        "experts.V2"};
  EXPECT_EQ(of_experts, expected);
  EXPECT_EQ(std::ranges::count_if(names, [](const std::string& name) { return name.starts_with("blocks.1.mlp."); }), 0);
}

TEST(Vit, ShapesAreThoseOfTimm) {
  TinyModel tiny;
  EXPECT_EQ(tiny.parameter("patch_embed.proj.weight").shape, Shape({16, 2, 4, 4}));
  EXPECT_EQ(tiny.parameter("cls_token").shape, Shape({1, 1, 16}));
  EXPECT_EQ(tiny.parameter("pos_embed").shape, Shape({1, 5, 16}));
  EXPECT_EQ(tiny.parameter("blocks.0.attn.qkv.weight").shape, Shape({48, 16}));
  EXPECT_EQ(tiny.parameter("blocks.0.mlp.fc1.weight").shape, Shape({32, 16}));
  EXPECT_EQ(tiny.parameter("blocks.1.moe.experts.U1").shape, Shape({4, 24, 16}));
  EXPECT_EQ(tiny.parameter("head.weight").shape, Shape({4, 16}));
}

TEST(Vit, StartsWithEveryClassEquallyLikely) {
  TestBench bench;
  Vit model(tiny_config());
  model.allocate(bench.ctx, DType::f32);
  model.init(bench.ctx, RngKey{1});
  ForwardPass pass;
  const Variable logits = model.forward(bench.ctx, Variable(random_input(bench.ctx, {{3, 2, 8, 8}}, DType::f32, RngKey{2})), pass);
  for (float v : logits.value.span<float>()) EXPECT_EQ(v, 0.0f);
}

TEST(Vit, ImagesOfAnotherSizeAreRefusedWithBothSizes) {
  TinyModel tiny;
  ForwardPass pass;
  const Tensor images = random_input(tiny.bench.ctx, {{1, 2, 8, 12}}, DType::f64, RngKey{1});
  try {
    tiny.model.forward(tiny.bench.ctx, Variable(images), pass);
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "[vit] images (1, 2, 8, 12) but the model wants (B, 2, 8, 8)");
  }
}

TEST(Vit, DepthForLayerDecayCountsFromTheEmbedding) {
  Vit model(tiny_config());
  const std::pair<const char*, int64_t> expected[] = {
      {"cls_token", 0},   {"pos_embed", 0}, {"patch_embed.proj.bias", 0}, {"blocks.0.norm1.weight", 1}, {"blocks.1.moe.experts.U1", 2},
      {"norm.weight", 3}, {"head.bias", 3}};
  for (const auto& [name, depth] : expected) EXPECT_EQ(model.depth_of(name), depth) << name;
}

}  // namespace
}  // namespace ermoe::testing
