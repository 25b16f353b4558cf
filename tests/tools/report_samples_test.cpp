// What the report keeps of single images: the surest mistakes, routes of the images that are shown, and experts' favourite patches. And
// what it reads off weights.
#include "tools/report_samples.h"

#include "models/svd.h"
#include "tests/models/tiny_model.h"
#include "tools/report_weights.h"

#include <nlohmann/json.hpp>

#include <cmath>

namespace ermoe {
namespace {

using testing::tiny_config;
using testing::TinyModel;

/// Two images of five tokens (a class token and four patches), two slots; four classes.
class Gathered : public ::testing::Test {
 protected:
  Gathered() : tiny_(tiny_config()), gatherer_(tiny_.model, {}, {7}, 2) {}

  void add(std::vector<int64_t> images, std::vector<int32_t> labels, std::vector<float> logits, const std::vector<int32_t>& first,
           const std::vector<float>& scores) {
    const auto B = static_cast<int64_t>(images.size()), N = 5 * B;
    std::vector<int32_t> ids;
    for (const int32_t e : first) ids.insert(ids.end(), {e, (e + 1) % 4});
    RoutingRecord record;
    record.block = 1;
    record.plan = make_plan(tiny_.bench.ctx, Tensor::from<int32_t>(tiny_.bench.allocator, {N, 2}, ids), 4);
    record.scores = Tensor::zeros(tiny_.bench.allocator, {N, 4}, DType::f32);
    for (int64_t n = 0; n < N; ++n) record.scores.data<float>()[n * 4 + first[static_cast<size_t>(n)]] = scores[static_cast<size_t>(n)];
    EvaluationBatch batch;
    batch.indices = std::move(images);
    batch.labels = std::move(labels);
    gatherer_.add(tiny_.bench.ctx, batch, Tensor::from<float>(tiny_.bench.allocator, {B, 4}, logits), {record});
  }

  TinyModel tiny_;
  SampleGatherer gatherer_;
};

TEST_F(Gathered, TheSurestMistakesFirst) {
  const std::vector<int32_t> first(10, 0);
  const std::vector<float> scores(10, 0.5f);
  add({0, 1}, {0, 0}, {9, 0, 0, 0, 0, 1, 0, 0}, first, scores);  // right; wrong, barely
  add({2, 3}, {1, 1}, {3, 0, 0, 0, 0, 0, 0, 9}, first, scores);  // wrong, surer; wrong, surest
  const auto& mistakes = gatherer_.mistakes();
  ASSERT_EQ(mistakes.size(), 2u);
  EXPECT_EQ(mistakes[0].index, 3);
  EXPECT_EQ(mistakes[0].guess, 3);
  EXPECT_EQ(mistakes[0].truth, 1);
  EXPECT_NEAR(mistakes[0].probability, std::exp(9) / (std::exp(9) + 3), 1e-6);
  EXPECT_EQ(mistakes[1].index, 2);
}

TEST_F(Gathered, RoutesOfTheImagesShownWithoutTheirClassToken) {
  add({6, 7}, {0, 0}, {1, 0, 0, 0, 1, 0, 0, 0}, {0, 0, 0, 0, 0, 3, 1, 2, 0, 1}, std::vector<float>(10, 0.5f));
  ASSERT_EQ(gatherer_.shown().size(), 1u);
  EXPECT_EQ(gatherer_.shown()[0].index, 7);
  EXPECT_EQ(gatherer_.shown()[0].experts, (std::vector<std::vector<int32_t>>{{1, 2, 0, 1}}));
}

TEST_F(Gathered, FavouritesAreTheHighestScoresOneAnImage) {
  add({6, 7}, {0, 0}, {1, 0, 0, 0, 1, 0, 0, 0}, {1, 1, 1, 0, 0, 1, 1, 2, 2, 2}, {9, 0.1f, 0.4f, 0.2f, 0.3f, 9, 0.6f, 0.1f, 0.7f, 0.2f});
  const auto& ones = gatherer_.favourites(0, 1);
  ASSERT_EQ(ones.size(), 2u);  // not the class tokens' 9
  EXPECT_EQ(ones[0].image, 7);
  EXPECT_EQ(ones[0].patch, 0);
  EXPECT_FLOAT_EQ(ones[0].score, 0.6f);
  EXPECT_EQ(ones[1].image, 6);
  EXPECT_EQ(ones[1].patch, 1);
  ASSERT_EQ(gatherer_.favourites(0, 2).size(), 1u);
  EXPECT_EQ(gatherer_.favourites(0, 2)[0].patch, 2);
  EXPECT_TRUE(gatherer_.favourites(0, 3).empty());
}

/// What is kept of image 7 of four, of a model's own evaluation pass.
SampleRecord shown_of(TinyModel& tiny, std::vector<ScoredPatch>& favourites) {
  SampleGatherer gatherer(tiny.model, {}, {7}, 2);
  ForwardPass pass;
  tiny.model.forward(tiny.bench.ctx, Variable(tiny.images), pass);
  EvaluationBatch batch;
  batch.indices = {4, 5, 6, 7};
  batch.labels = {0, 0, 0, 0};
  gatherer.add(tiny.bench.ctx, batch, Tensor::zeros(tiny.bench.allocator, {4, 4}, DType::f32), pass.routes);
  for (int64_t e = 0; e < 4; ++e) favourites.insert(favourites.end(), gatherer.favourites(0, e).begin(), gatherer.favourites(0, e).end());
  return gatherer.shown().at(0);
}

TEST(SampleGatherer, SoftRoutingHasNoRoutesToShow) {
  VitConfig config = tiny_config();
  config.moe.router = RouterKind::soft;
  config.moe.expert = ExpertKind::plain;
  TinyModel tiny(config);
  std::vector<ScoredPatch> favourites;
  EXPECT_TRUE(shown_of(tiny, favourites).experts.empty());
  EXPECT_TRUE(favourites.empty());
}

TEST(SampleGatherer, AdaptersSeeThePatchesAlone) {
  VitConfig config = tiny_config();
  config.moe.router = RouterKind::linear;
  config.moe.expert = ExpertKind::plain;
  config.moe.hidden = 0;
  config.moe.adapter = 8;
  TinyModel tiny(config);
  ASSERT_EQ(tiny.model.routed_tokens(), 4);
  ForwardPass pass;
  tiny.model.forward(tiny.bench.ctx, Variable(tiny.images), pass);
  const Tensor ids = pass.routes.at(0).plan.expert_ids;  // (16, 2)
  std::vector<int32_t> last;
  for (int64_t n = 12; n < 16; ++n) last.push_back(ids.data<int32_t>()[n * 2]);
  std::vector<ScoredPatch> favourites;
  EXPECT_EQ(shown_of(tiny, favourites).experts, (std::vector<std::vector<int32_t>>{last}));
  EXPECT_FALSE(favourites.empty());
}

TEST(SingularValues, OfMatricesByHand) {
  testing::TestBench bench;
  const Tensor W = Tensor::from<double>(bench.allocator, {2, 2, 3}, std::vector<double>{3, 0, 0, 0, -4, 0, 1, 1, 0, 1, 1, 0});
  const auto all = singular_values(W);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_NEAR(all[0][0], 4, 1e-14);
  EXPECT_NEAR(all[0][1], 3, 1e-14);
  EXPECT_NEAR(all[1][0], 2, 1e-14);
  EXPECT_NEAR(all[1][1], 0, 1e-14);
}

class Weights : public ::testing::Test {
 protected:
  /// The model in f32, as it is loaded.
  MoeLayer& layer(ExpertKind kind, RouterKind router) {
    VitConfig config = tiny_config();
    config.moe.expert = kind;
    config.moe.router = router;
    model_.emplace(config);
    model_->allocate(bench_.ctx, DType::f32);
    model_->init(bench_.ctx, RngKey{3});
    model_->refresh(bench_.ctx);
    return *model_->moe_layers()[0];
  }

  testing::TestBench bench_;
  std::optional<Vit> model_;
};

TEST_F(Weights, EigenExpertsSayTheirScalesDescending) {
  MoeLayer& moe = layer(ExpertKind::eigen, RouterKind::ermoe);
  const Tensor s1 = moe.experts().factors().s1.value;
  s1.data<float>()[1] = -100;
  const auto spectra = report_spectra(bench_.ctx, moe);
  ASSERT_EQ(spectra["W1"].size(), 4u);
  ASSERT_EQ(spectra["W1"][0].size(), spectra["place"].size());
  EXPECT_EQ(spectra["W1"][0][0], 100);
  for (size_t i = 1; i < spectra["W1"][1].size(); ++i) EXPECT_GE(spectra["W1"][1][i - 1], spectra["W1"][1][i]);
  EXPECT_EQ(spectra["place"][0], 1);
}

TEST_F(Weights, PlainExpertsHaveTheirsComputed) {
  MoeLayer& moe = layer(ExpertKind::plain, RouterKind::linear);
  const auto spectra = report_spectra(bench_.ctx, moe);
  double squares = 0, norm = 0;
  for (const auto& v : spectra["W1"][2]) squares += v.get<double>() * v.get<double>();
  moe.experts().visit("", {.parameter =
                               [&](Parameter& p) {
                                 if (p.name != "W1") return;
                                 const int64_t each = p.value.numel() / 4;
                                 for (int64_t i = 2 * each; i < 3 * each; ++i) norm += std::pow(p.value.data<float>()[i], 2);
                               },
                           .buffer = {}});
  EXPECT_GT(norm, 0);
  EXPECT_NEAR(squares / norm, 1, 1e-4);  // of five digits each
  EXPECT_TRUE(report_overlap(bench_.ctx, moe).is_null());
}

TEST_F(Weights, OverlapIsThatOfTheRoutingBasis) {
  MoeLayer& moe = layer(ExpertKind::eigen, RouterKind::ermoe);
  const auto overlap = report_overlap(bench_.ctx, moe);
  EXPECT_EQ(overlap["rank"], 4);
  EXPECT_EQ(overlap["width"], 16);
  for (size_t a = 0; a < 4; ++a) {
    EXPECT_NEAR(overlap["matrix"][a][a].get<double>(), 1, 1e-4);
    EXPECT_EQ(overlap["matrix"][a][(a + 1) % 4], overlap["matrix"][(a + 1) % 4][a]);
  }
  MoeLayer& other = layer(ExpertKind::eigen, RouterKind::linear);
  EXPECT_NEAR(report_overlap(bench_.ctx, other)["matrix"][0][0].get<double>(), 1, 1e-4);
}

}  // namespace
}  // namespace ermoe
