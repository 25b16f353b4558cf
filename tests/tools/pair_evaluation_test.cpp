// What an evaluation of images and captions says, against features that were made one by one and compared by hand.
#include "tools/pair_evaluation.h"

#include "tests/bench.h"
#include "tests/tools/made_captions.h"
#include "tools/model_choice.h"

#include <gtest/gtest.h>

#include <cmath>

namespace ermoe::testing {
namespace {

/// A dual encoder with its first values, and its data.
class PairEvaluationTest : public ::testing::Test {
 protected:
  PairEvaluationTest() {
    config.data.overfit = 9;
    pipeline.emplace(config, bench.allocator, 2, WarnFn{});
    pipeline->settle_on(bench.ctx, nullptr);
    bench.ctx.mode = Mode::eval;
    made_model = make_model(config);
    model = &dynamic_cast<DualEncoder&>(*made_model);
    model->allocate(bench.ctx, DType::f32);
    model->init(bench.ctx, RngKey{5});
  }

  static constexpr int64_t loss_batch = 4;

  PairEvaluation evaluate(int64_t batch, ExpertOrder order = ExpertOrder::own, const RoutingCollector* previous = nullptr) {
    return evaluate_pairs(bench.ctx, *model, *pipeline, {.images = batch, .loss = loss_batch}, previous, order);
  }

  /// The features of everything, each sent through its tower alone.
  void features_one_by_one(std::vector<std::vector<double>>& images, std::vector<std::vector<double>>& texts,
                           std::vector<int64_t>& owners) {
    pipeline->for_each_evaluation_batch(bench.ctx, 1, [&](const EvaluationBatch& in) {
      ForwardPass pass;
      images.push_back(to_doubles(model->image_features(bench.ctx, Variable(in.input.images), pass).value));
      for (int64_t c = 0; c < std::ssize(in.owners); ++c) {
        ForwardPass own;
        texts.push_back(to_doubles(model->text_features(bench.ctx, in.input.tokens.slice(c, c + 1), own).value));
        owners.push_back(in.owners[static_cast<size_t>(c)]);
      }
    });
  }

  MadeCaptions made;
  RunConfig config = made.config();
  TestBench bench;
  std::optional<CaptionPipeline> pipeline;
  std::unique_ptr<Model> made_model;
  DualEncoder* model = nullptr;
};

double cosine(const std::vector<double>& a, const std::vector<double>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

TEST_F(PairEvaluationTest, AgreesWithBruteForce) {
  std::vector<std::vector<double>> images, texts;
  std::vector<int64_t> owners;
  features_one_by_one(images, texts, owners);
  ASSERT_EQ(images.size(), 9u);
  ASSERT_EQ(texts.size(), 18u);
  const PairEvaluation result = evaluate(4);
  EXPECT_EQ(result.evaluation.images, 9);
  EXPECT_EQ(result.features.owners, owners);
  double to_image[3] = {}, to_text[3] = {};
  const int64_t most[] = {1, 5, 10};
  for (size_t c = 0; c < texts.size(); ++c) {
    const double own = cosine(images[static_cast<size_t>(owners[c])], texts[c]);
    int64_t rank = 1;
    for (size_t i = 0; i < images.size(); ++i)
      rank += static_cast<int64_t>(i) != owners[c] && cosine(images[i], texts[c]) >= own - equal_scores;
    for (size_t k = 0; k < 3; ++k) to_image[k] += rank <= most[k] ? 1.0 / 18 : 0;
  }
  for (size_t i = 0; i < images.size(); ++i) {
    double own = -2;
    for (size_t c = 0; c < texts.size(); ++c)
      if (owners[c] == static_cast<int64_t>(i)) own = std::max(own, cosine(images[i], texts[c]));
    int64_t rank = 1;
    for (size_t c = 0; c < texts.size(); ++c)
      rank += owners[c] != static_cast<int64_t>(i) && cosine(images[i], texts[c]) >= own - equal_scores;
    for (size_t k = 0; k < 3; ++k) to_text[k] += rank <= most[k] ? 1.0 / 9 : 0;
  }
  const RetrievalMetrics& all = result.evaluation.retrieval->all;
  EXPECT_NEAR(all.to_image.recall_1, to_image[0], 1e-9);
  EXPECT_NEAR(all.to_image.recall_5, to_image[1], 1e-9);
  EXPECT_NEAR(all.to_image.recall_10, to_image[2], 1e-9);
  EXPECT_NEAR(all.to_text.recall_1, to_text[0], 1e-9);
  EXPECT_NEAR(all.to_text.recall_5, to_text[1], 1e-9);
  EXPECT_NEAR(all.to_text.recall_10, to_text[2], 1e-9);
  EXPECT_FALSE(result.evaluation.retrieval->folds.has_value());
}

TEST_F(PairEvaluationTest, BatchesMakeNoDifferenceToFeatures) {
  std::vector<std::vector<double>> images, texts;
  std::vector<int64_t> owners;
  features_one_by_one(images, texts, owners);
  for (const int64_t batch : {1, 2, 4, 9, 100}) {
    const PairFeatures f = evaluate(batch).features;
    ASSERT_EQ(f.image.shape(), (Shape{9, 8}));
    ASSERT_EQ(f.text.shape(), (Shape{18, 8}));
    const std::vector<double> image = to_doubles(f.image), text = to_doubles(f.text);
    for (size_t i = 0; i < image.size(); ++i) EXPECT_NEAR(image[i], images[i / 8][i % 8], 1e-5) << batch;
    for (size_t i = 0; i < text.size(); ++i) EXPECT_NEAR(text[i], texts[i / 8][i % 8], 1e-5) << batch;
  }
}

TEST_F(PairEvaluationTest, TheLossIsThatOfTraining) {
  // The mean over batches of three images, which nine are in batches of four at most; each with its first caption.
  double sum = 0;
  pipeline->for_each_evaluation_batch(bench.ctx, 3, [&](const EvaluationBatch& in) {
    const int64_t rows = std::ssize(in.indices), W = config.text.context;
    const Tensor first = bench.ctx.empty({rows, W}, DType::i32);
    for (int64_t b = 0; b < rows; ++b) {
      const auto c = std::ranges::find(in.owners, in.indices[static_cast<size_t>(b)]) - in.owners.begin();
      std::copy_n(in.input.tokens.data<int32_t>() + c * W, W, first.data<int32_t>() + b * W);
    }
    ForwardPass pass;
    const MicroBatch batch{.images = in.input.images, .targets = {}, .allow = {}, .tokens = first};
    sum += static_cast<double>(rows) * scalar_of(model->loss(bench.ctx, batch, {}, pass).value);
  });
  for (const int64_t batch : {1, 4, 9}) EXPECT_NEAR(evaluate(batch).evaluation.loss, sum / 9, 1e-5) << "whatever goes through at once";
}

TEST_F(PairEvaluationTest, RoutingIsThatOfBothTowers) {
  const PairEvaluation first = evaluate(4);
  ASSERT_EQ(first.evaluation.routing.size(), 2u);
  EXPECT_EQ(first.evaluation.routing[0].block, 1);
  EXPECT_EQ(first.evaluation.routing[1].block, 3);  // block 1 of the text tower, behind two of the image tower
  EXPECT_EQ(first.evaluation.routing[0].churn, -1);
  const PairEvaluation second = evaluate(3, ExpertOrder::own, first.evaluation.collector.get());
  for (const RoutingMetrics& m : second.evaluation.routing) EXPECT_EQ(m.churn, 0);
  const PairEvaluation shuffled = evaluate(4, ExpertOrder::shuffled);
  const std::vector<double> own = to_doubles(first.features.image), other = to_doubles(shuffled.features.image);
  EXPECT_NE(own, other);
  EXPECT_NE(to_doubles(first.features.text), to_doubles(shuffled.features.text));
}

TEST_F(PairEvaluationTest, FeaturesThatAreAllAlikeFindNothing) {
  Parameter* head = nullptr;
  for (Parameter* p : parameters_of(*model))
    if (p->name == "image.head.weight") head = p;
  ASSERT_NE(head, nullptr);
  zero(head->value);
  model->refresh(bench.ctx);
  EXPECT_EQ(evaluate(4).evaluation.retrieval->all.to_image.recall_1, 0);
}

TEST_F(PairEvaluationTest, ATableTellsWhatEachCaptionFinds) {
  const PairEvaluation result = evaluate(4);
  const std::string csv = found_csv(result.features, *pipeline);
  EXPECT_EQ(std::ranges::count(csv, '\n'), 19);
  EXPECT_TRUE(csv.starts_with("image,caption,rank,top_image\n" + pipeline->sample_name(0) + ",a grey of number a,"));
  int64_t first = 0;  // captions whose image is the best
  for (size_t at = 0; (at = csv.find(",1,", at)) != std::string::npos; ++at) ++first;
  EXPECT_NEAR(static_cast<double>(first) / 18, result.evaluation.retrieval->all.to_image.recall_1, 1e-9);
}

}  // namespace
}  // namespace ermoe::testing
