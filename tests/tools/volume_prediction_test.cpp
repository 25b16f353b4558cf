// The age of one volume: by one model or several, with how far they lie apart, which experts looked, and where maps of regions are wanted.
#include "tools/volume_prediction.h"

#include "core/error.h"
#include "tests/tools/made_study.h"
#include "tools/run_folder.h"
#include "tools/trainer.h"

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace ermoe::testing {
namespace {

bool holds(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

class VolumePredictionTest : public ::testing::Test {
 protected:
  VolumePredictionTest() { config.train.steps = 1; }

  /// Trains a moment and opens what came out.
  std::vector<LoadedModel>& train(const std::string& name) {
    config.train.out = study.folder / name;
    config.train.seed += 1;
    const Quiet quiet;
    Trainer(config).run();
    models.emplace_back(engine, config.train.out, [](const std::string&) {});
    return models;
  }
  VolumePrediction predict(const std::string& file, const std::string& regions = "", int64_t copies = 8) {
    return predict_volume(engine, models, file, {.regions = regions, .copies = copies});
  }
  std::string refusal(const std::string& file, const std::string& regions = "") {
    try {
      predict(file, regions);
    } catch (const InputError& fault) {
      return fault.what();
    }
    return "accepted";
  }

  MadeStudy study{8};
  RunConfig config = study.config();
  Engine engine{1, 0, DeviceChoice::cpu};
  std::vector<LoadedModel> models;
};

TEST_F(VolumePredictionTest, OneModelsSpreadIsThatOfVariedCopies) {
  train("still");
  const VolumePrediction still = predict(study.volume(2));
  EXPECT_EQ(still.each, std::vector<double>{still.age});
  EXPECT_EQ(still.spread, 0) << "nothing is varied";
  models.clear();
  config.augment.gain = 0.3;
  config.augment.shift = 2;
  train("lively");
  const VolumePrediction varied = predict(study.volume(2));
  EXPECT_GT(varied.spread, 0);
  EXPECT_EQ(predict(study.volume(2)).spread, varied.spread) << "the same again";
  EXPECT_EQ(predict(study.volume(2), "", 1).spread, 0) << "one copy has no spread";
  EXPECT_EQ(predict(study.volume(2), "", 1).age, varied.age) << "the age is that of the volume as it is";
  EXPECT_NE(predict(study.volume(3)).age, varied.age);
}

TEST_F(VolumePredictionTest, SeveralModelsGiveTheirMeanAndDeviation) {
  train("one");
  const double first = predict(study.volume(0)).age;
  train("two");
  train("three");
  const VolumePrediction all = predict(study.volume(0));
  ASSERT_EQ(all.each.size(), 3u);
  EXPECT_EQ(all.each[0], first);
  const double mean = (all.each[0] + all.each[1] + all.each[2]) / 3;
  double squares = 0;
  for (const double age : all.each) squares += (age - mean) * (age - mean);
  EXPECT_NEAR(all.age, mean, 1e-12);
  EXPECT_NEAR(all.spread, std::sqrt(squares / 2), 1e-12);
  EXPECT_GT(all.spread, 0);
}

TEST_F(VolumePredictionTest, NamesTheExpertsMostUsedFirst) {
  train("run");
  const VolumePrediction p = predict(study.volume(1));
  ASSERT_EQ(p.experts.size(), 2u);
  EXPECT_GE(p.experts[0].share, p.experts[1].share);
  EXPECT_NEAR(p.experts[0].share + p.experts[1].share, 1, 1e-12);
  EXPECT_EQ(p.experts[0].block, 1);
  EXPECT_NE(p.experts[0].expert, p.experts[1].expert);
  EXPECT_EQ(predict_volume(engine, models, study.volume(1), {.regions = {}, .experts = 1}).experts.size(), 1u);
}

/// Every expert has as many slots, but not as much of the output.
TEST_F(VolumePredictionTest, OfSoftRoutingSharesAreOfTheOutput) {
  config.model.moe.router = RouterKind::soft;
  train("soft");
  const VolumePrediction p = predict(study.volume(1));
  ASSERT_EQ(p.experts.size(), 2u);
  EXPECT_NEAR(p.experts[0].share + p.experts[1].share, 1, 1e-6);
  EXPECT_GT(p.experts[0].share, p.experts[1].share);
}

TEST_F(VolumePredictionTest, ExpertsWithRegionsWantAMapOnTheVolumesGrid) {
  config = study.regional();
  config.train.steps = 1;
  train("regional");
  EXPECT_TRUE(holds(refusal(study.volume(1)), "--regions: the model's experts have regions"));
  EXPECT_EQ(refusal(study.volume(1), study.folder / "regions/s01.nii"), "accepted");
  Volume moved = small_regions(small_brain(1, 0));
  moved.grid.to_world.rows[2][3] += 10;
  write_nifti(study.folder / "moved.nii", moved);
  EXPECT_TRUE(holds(refusal(study.volume(1), study.folder / "moved.nii"), "moved.nii does not lie on the grid of"));
  Volume one = small_regions(small_brain(1, 0));
  for (float& v : one.values) v = v > 0 ? 2.0f : 0.0f;
  write_nifti(study.folder / "one.nii", one);
  const VolumePrediction p = predict(study.volume(1), study.folder / "one.nii");
  for (const ExpertUse& use : p.experts) EXPECT_EQ(use.share > 0, use.expert != 0) << "whose region is nowhere: " << use.share;
}

TEST_F(VolumePredictionTest, ARunsAtlasIsTakenWhereNoMapIsGiven) {
  config = study.regional(study.folder / "regions/s00.nii");
  config.train.steps = 1;
  train("regional");
  EXPECT_EQ(predict(study.volume(1)).age, predict(study.volume(1), study.folder / "regions/s00.nii").age);
}

TEST_F(VolumePredictionTest, WhatCannotBeReadIsNamed) {
  train("run");
  EXPECT_TRUE(holds(refusal(study.folder / "nowhere.nii"), "nowhere.nii"));
  Volume flat = small_brain(1, 0);
  std::ranges::fill(flat.values, 3.0f);
  write_nifti(study.folder / "flat.nii", flat);
  EXPECT_TRUE(refusal(study.folder / "flat.nii").starts_with(study.folder / "flat.nii")) << refusal(study.folder / "flat.nii");
}

TEST(VolumePredictions, AreWrittenAsCsvAndJson) {
  const std::vector<VolumePrediction> all{
      {.file = "a,b.nii", .age = 61.234, .spread = 2.5, .each = {60, 62.468}, .experts = {{3, 1, 0.75}, {3, 0, 0.25}}},
      {.file = "c.nii", .age = 20, .experts = {}}};
  EXPECT_EQ(
      volume_predictions_text(all, PredictionFormat::csv),
      "file,age,spread,models,experts\n\"a,b.nii\",61.23,2.50,2,block 3 expert 1: 75 %; block 3 expert 0: 25 %\nc.nii,20.00,0.00,0,\n");
  const auto json = nlohmann::json::parse(volume_predictions_text(all, PredictionFormat::json));
  EXPECT_EQ(json[0]["age"], 61.234);
  EXPECT_EQ(json[0]["models"], (std::vector<double>{60, 62.468}));
  EXPECT_EQ(json[0]["experts"][0]["share"], 0.75);
  EXPECT_TRUE(json[1]["experts"].empty());
}

}  // namespace
}  // namespace ermoe::testing
