// What a model costs, against figures that were computed elsewhere.
#include "models/summary.h"

#include "tests/models/tiny_model.h"

namespace ermoe::testing {
namespace {

/// The `c10` shape: D 384, 12 blocks, 6 heads, 32 pixels in patches of 4.
VitConfig c10() {
  VitConfig c;
  c.width = 384;
  c.depth = 12;
  c.heads = 6;
  return c;
}

TEST(Summary, FlopsOfTheC10ShapeAreTheKnownOnes) {
  VitConfig dense = c10();
  dense.moe.layers = "none";
  Vit dense_model(dense), sparse_model(c10());
  const ModelSummary d = summarize(dense_model), s = summarize(sparse_model);
  // A training step of an image is three forward passes; the known figures leave scoring out.
  EXPECT_NEAR(3 * d.forward_flops / 1e9, 8.52, 0.005);
  EXPECT_NEAR(3 * (s.forward_flops - s.scoring_flops) / 1e9, 11.28, 0.005);
  EXPECT_EQ(d.scoring_flops, 0);
  EXPECT_EQ(d.step_flops, 0);
}

TEST(Summary, ScoringIsFourProductsATokenAndColumn) {
  VitConfig s16 = c10();
  s16.image_size = 224;
  s16.patch = 16;
  s16.moe.basis_rank = 32;
  s16.moe.basis = Basis::leading;
  s16.moe.score = Score::context_cosine;
  Vit model(s16);
  const ModelSummary s = summarize(model);
  EXPECT_EQ(s.scoring_flops, 6.0 * 197 * 4 * 32 * 8 * 384);
  EXPECT_NEAR(3 * (s.forward_flops - s.scoring_flops) / 1e9, 35.96, 0.02);
  EXPECT_NEAR(s.scoring_flops / (s.forward_flops - s.scoring_flops), 0.039, 0.0005);
}

TEST(Summary, FlopsByHand) {
  // T 5, D 16: qkv and proj 8·T·D², scores and values 4·T²·D; dense F 32; patches 4 · 32 inputs; head 4 classes.
  VitConfig c = tiny_config();
  c.moe.layers = "none";
  Vit dense(c);
  const double embed = 2 * 4 * 32 * 16, head = 2 * 16 * 4, attention = 8 * 5 * 256 + 4 * 25 * 16, mlp = 4 * 5 * 16 * 32;
  EXPECT_EQ(summarize(dense).forward_flops, embed + head + 2 * (attention + mlp));
  // Volumes: T 9, patches 8 · 128 inputs.
  c.dimensions = 3;
  Vit volumes(c);
  EXPECT_EQ(summarize(volumes).forward_flops, 2 * 8 * 128 * 16 + head + 2 * (8 * 9 * 256 + 4 * 81 * 16 + 4 * 9 * 16 * 32));
  // Experts of F 24, two a token; scoring x and c on 4 bases of 4 columns.
  Vit sparse(tiny_config());
  const double scoring = 2 * 2 * 5 * 16 * 16;
  EXPECT_EQ(summarize(sparse).scoring_flops, scoring);
  EXPECT_EQ(summarize(sparse).forward_flops, embed + head + 2 * attention + mlp + 2 * 4 * 5 * 16 * 24 + scoring);
  c = tiny_config();
  c.moe.score = Score::subspace_cosine;  // no context
  Vit subspace(c);
  EXPECT_EQ(summarize(subspace).scoring_flops, scoring / 2);
}

TEST(Summary, ScoringIsWhatTheRouterSays) {
  const auto scoring = [](RouterKind router) {
    VitConfig c = tiny_config();
    c.moe.router = router;
    c.moe.cosine_width = 6;
    Vit model(c);
    return summarize(model).scoring_flops;
  };
  for (const RouterKind router :
       {RouterKind::linear, RouterKind::vmoe, RouterKind::switch_lbl, RouterKind::bias_balanced, RouterKind::expert_choice})
    EXPECT_EQ(scoring(router), 2 * 5 * 16 * 4);
  EXPECT_EQ(scoring(RouterKind::learned_cosine), 2 * 5 * (16 * 6 + 6 * 4));
  EXPECT_EQ(scoring(RouterKind::soft), 3 * 2 * 5 * 16 * (4 * 3));  // three slots an expert: 2 · 5 / 4, rounded up
}

TEST(Summary, SlotsAreTheRowsOfSoftExperts) {
  const auto of_experts = [](int64_t slots) {
    VitConfig c = tiny_config();
    c.moe.router = RouterKind::soft;
    c.moe.soft_slots = slots;
    Vit model(c);
    const ModelSummary s = summarize(model);
    return s.forward_flops - s.scoring_flops;
  };
  EXPECT_EQ(of_experts(7) - of_experts(2), 4 * (7 - 2) * 4 * 16 * 24);
  EXPECT_EQ(of_experts(0), of_experts(3));
}

TEST(Summary, EveryExpertIsActiveWhereTokensAreMixed) {
  VitConfig c = tiny_config();
  c.moe.expert = ExpertKind::plain;
  c.moe.router = RouterKind::soft;
  Vit model(c);
  const ModelSummary s = summarize(model);
  EXPECT_EQ(s.active_parameters, s.parameters);
}

TEST(Summary, ParametersAreThoseThatTrainingChanges) {
  for (ExpertKind kind : {ExpertKind::eigen, ExpertKind::plain}) {
    VitConfig config = tiny_config();
    config.moe.expert = kind;
    if (kind == ExpertKind::plain) config.moe.basis = Basis::untied;
    TinyModel tiny(config);
    int64_t trained = 0;
    for (const Parameter* p : tiny.trained()) trained += p->shape.numel();
    EXPECT_EQ(summarize(tiny.model).parameters, trained);
  }
}

/// Its published count of parameters; operations by hand: products of both towers, attention over 50 and 77 tokens, projections.
TEST(Summary, ADualEncoderIsAsLargeAsClipsSmallest) {
  DualConfig c;
  c.image.image_size = 224;
  c.image.patch = 32;
  c.image.width = 768;
  c.image.depth = c.image.heads = 12;
  c.image.pre_norm = true;
  c.image.patch_bias = PatchBias::off;
  c.image.moe.layers = "none";
  c.text.vocabulary = 49408;
  c.text.end_token = 49407;
  DualEncoder model(c);
  const ModelSummary s = summarize(model);
  EXPECT_EQ(s.parameters, 151277313);
  EXPECT_EQ(s.active_parameters, s.parameters);
  const auto blocks = [](double T, double D) { return 12 * (24 * T * D * D + 4 * T * T * D); };
  const double ends = 2 * (49 * 3 * 32 * 32 * 768.0 + 768 * 512 + 512 * 512);
  EXPECT_NEAR(s.forward_flops, blocks(50, 768) + blocks(77, 512) + ends, 1);
}

TEST(Summary, ActiveParametersAreThoseOfTwoExperts) {
  VitConfig config = tiny_config();
  config.moe.router = RouterKind::linear;
  config.moe.expert = ExpertKind::plain;
  Vit sparse(config);
  const ModelSummary s = summarize(sparse);
  const int64_t expert = 2 * 16 * 24 + 16 + 24;
  EXPECT_EQ(s.parameters - s.active_parameters, 2 * expert);
  config.moe.expert = ExpertKind::eigen;  // the same matrices are passed, made from factors
  Vit eigen(config);
  EXPECT_EQ(summarize(eigen).active_parameters, s.active_parameters);
}

/// performance.md of the design: tangent step and retraction 80·D³, materialising 16·D³, its gradients 32·D³ an expert at full
/// rank and F = 4D.
TEST(Summary, StepFlopsAreOneHundredTwentyEightCubesAnExpert) {
  VitConfig config = c10();
  Vit model(config);
  const double cube = 384.0 * 384 * 384;
  EXPECT_NEAR(summarize(model).step_flops / (48 * cube), 128, 1e-9);
  config.moe.orthogonality = Orthogonality::none;
  Vit free(config);
  EXPECT_NEAR(summarize(free).step_flops / (48 * cube), 48, 1e-9);
}

}  // namespace
}  // namespace ermoe::testing
